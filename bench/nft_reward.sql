\set user random(1, :users)
\set number random(1, 1000000000000000)
BEGIN;
INSERT INTO idempotency_keys VALUES ('pgbench', :number::text || '-' || :client_id::text, sha256(int8send(:number)), sha256(int8send(:number)));
INSERT INTO nft_progress (user_id, nft_type, counters) VALUES ('user-' || :user::text, 'explorer', '{"quests": 1}')
    ON CONFLICT (user_id, nft_type) DO UPDATE
    SET counters = jsonb_build_object('quests', (nft_progress.counters ->> 'quests')::bigint + 1)
    RETURNING (counters ->> 'quests')::bigint AS quests, level, nft_id \gset
\set reached :quests / :every
\if :reached > :level
INSERT INTO nft_instances (nft_id, user_id, nft_type, level, metadata, create_time, update_time)
    VALUES (uuidv7(), 'user-' || :user::text, 'explorer', :reached::int, '{"name": "Explorer"}', now(), now())
    ON CONFLICT (user_id, nft_type) DO UPDATE
    SET level = excluded.level, metadata = excluded.metadata, update_time = now()
    RETURNING nft_id \gset
UPDATE nft_progress SET level = :reached::int, nft_id = :nft_id::uuid
    WHERE user_id = 'user-' || :user::text AND nft_type = 'explorer';
\endif
INSERT INTO nft_audit_log (actor, action, subject, user_id, before, after, reference, request_id, trace_id, nft_id)
    VALUES ('connect/bench', 'reward.apply', 'progress/explorer', 'user-' || :user::text,
        jsonb_build_object('counter', 'quests', 'value', :quests::bigint - 1, 'level', :level::int),
        jsonb_build_object('counter', 'quests', 'value', :quests::bigint, 'level', :reached::int),
        'event-1', :number::text, md5(:number::text),
        nullif(:nft_id::text, '')::uuid);
COMMIT;
