-- Rows of groups and of what pools allow that a CHECK would refuse without a word: as in 47_odd_rows.sql.

CREATE OR REPLACE TRIGGER group_odd_name_trigger BEFORE INSERT OR UPDATE ON groups
    FOR EACH ROW WHEN (NEW.name !~ '^[a-z0-9][a-z0-9-]{0,62}$') EXECUTE FUNCTION refuse_row('groups_name_is_one',
    'that cannot be the name of a group', 'Use small letters, digits and hyphens, 63 at most: biology-2');
CREATE OR REPLACE TRIGGER group_odd_number_trigger BEFORE INSERT OR UPDATE ON groups
    FOR EACH ROW WHEN (NEW.max_live < 0) EXECUTE FUNCTION refuse_row('groups_max_live_is_a_number',
    'max_live is 0 or more', 'It is how many machines the group may have at once: SET max_live = 10, or NULL for as many as there are');

CREATE OR REPLACE TRIGGER member_odd_email_trigger BEFORE INSERT OR UPDATE ON members
    FOR EACH ROW WHEN (NEW.email !~ '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:].]+$') EXECUTE FUNCTION refuse_row(
    'members_email_is_one', 'a member is known by an e-mail address', 'As in INSERT INTO members (email, group_name) VALUES '
    '(''ada@example.org'', ''biology''). A file whose first line has titles: \copy members (email, group_name) FROM people.csv CSV HEADER');

CREATE OR REPLACE TRIGGER share_odd_number_trigger BEFORE INSERT OR UPDATE ON shares
    FOR EACH ROW WHEN (NEW.max_live < 0) EXECUTE FUNCTION refuse_row('shares_max_live_is_a_number',
    'max_live is 0 or more', 'It is how many machines of the pool the group may have: SET max_live = 10, or NULL for as many as there are');

CREATE OR REPLACE TRIGGER join_code_odd_hash_trigger BEFORE INSERT OR UPDATE ON join_codes
    FOR EACH ROW WHEN (octet_length(NEW.code_sha256) <> 32) EXECUTE FUNCTION refuse_row('join_codes_code_is_hashed',
    'a code is kept as its SHA-256, which has 32 bytes', 'Write sha256(''the code'')');
CREATE OR REPLACE TRIGGER join_code_odd_people_trigger BEFORE INSERT OR UPDATE ON join_codes
    FOR EACH ROW WHEN (NEW.max_people <= 0) EXECUTE FUNCTION refuse_row('join_codes_max_people_is_some',
    'a code is for one person at least', 'SET max_people = 30, or NULL for as many as come');
CREATE OR REPLACE TRIGGER join_code_odd_times_trigger BEFORE INSERT OR UPDATE ON join_codes
    FOR EACH ROW WHEN (NEW.opens_at >= NEW.closes_at) EXECUTE FUNCTION refuse_row('join_codes_opens_before_it_closes',
    'a code opens before it closes', 'SET opens_at = clock(), closes_at = clock() + interval ''1 day''');

CREATE OR REPLACE TRIGGER pool_odd_access_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.access NOT IN ('open', 'members')) EXECUTE FUNCTION refuse_row('pools_access_is_one',
    'a pool is open or for members', 'SET access = ''open'' (everybody may ask), or ''members'' (whose group has a share: INSERT INTO shares …)');
CREATE OR REPLACE TRIGGER pool_odd_person_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.per_person <= 0) EXECUTE FUNCTION refuse_row('pools_per_person_is_some',
    'per_person is more than 0', 'It is how many live leases a person may have: SET per_person = 1');
CREATE OR REPLACE TRIGGER pool_odd_money_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NOT (NEW.price_per_hour BETWEEN 0 AND 1000000000 AND NEW.budget BETWEEN 0 AND 1000000000)) EXECUTE FUNCTION refuse_row('pools_money_is_some',
    'price_per_hour and budget are amounts of money', 'SET price_per_hour = 1.006, budget = 500, or NULL for no budget');
CREATE OR REPLACE TRIGGER pool_odd_currency_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.currency !~ '^[A-Z]{3}$') EXECUTE FUNCTION refuse_row('pools_currency_is_one',
    'a currency is three capital letters', 'SET currency = ''EUR''');

CREATE OR REPLACE TRIGGER pool_odd_time_zone_trigger BEFORE INSERT OR UPDATE OF time_zone ON pools
    FOR EACH ROW WHEN (NOT is_time_zone(NEW.time_zone)) EXECUTE FUNCTION refuse_row('pools_time_zone_is_one',
    'there is no such time zone', 'Name a place: SET time_zone = ''Europe/Berlin''; all of them: SELECT name FROM pg_timezone_names WHERE name ~ ''/''');
