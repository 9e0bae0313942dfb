-- How many of ARGV[2] calls may this provider take now, and if none, in how many milliseconds?
--
-- Each window counts grants in slots of a twentieth of its length, on this server's clock. A grant
-- may be used until it is `life` ms old, so what reaches the provider within any span of a window's
-- length was granted within that span plus `life` plus one slot: that much is summed, and the sum
-- never exceeds the limit.
--
-- KEYS: state (hash), remaining (string that people read)
-- ARGV: verb, n or grant's slot base, life ms, windows as JSON [[calls, ms], ...], ...
-- Answers {granted, wait ms, now ms}; granted is -1 where the state is lost: rebuild it first.

local verb = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[3])
local windows = cjson.decode(ARGV[4])
local state = KEYS[1]

local function slots(window)
    return math.max(1, math.ceil(window[2] / 20))
end

-- What was granted within the span that counts, by slot, oldest first; forgets what is older.
local function counted(index, window)
    local width = slots(window)
    local oldest = math.floor((now - window[2] - life) / width)
    local found, sum = {}, 0
    local fields = redis.call('HGETALL', state)
    local prefix = 'w' .. index .. ':'
    for at = 1, #fields, 2 do
        if string.sub(fields[at], 1, #prefix) == prefix then
            local slot = tonumber(string.sub(fields[at], #prefix + 1))
            if slot < oldest then
                redis.call('HDEL', state, fields[at])
            else
                local calls = tonumber(fields[at + 1])
                table.insert(found, {slot, calls})
                sum = sum + calls
            end
        end
    end
    table.sort(found, function(a, b) return a[1] < b[1] end)
    return found, sum, width
end

local function add(index, window, at, calls)
    redis.call('HINCRBY', state, 'w' .. index .. ':' .. math.floor(at / slots(window)), calls)
end

if verb == 'pause' then
    local known = tonumber(redis.call('HGET', state, 'paused_until') or '0')
    local till = now + tonumber(ARGV[2])
    if till > known then
        redis.call('HSET', state, 'paused_until', till)
    end
    return {0, 0, now}
end

if verb == 'give_back' then  -- unused grants of the moment ARGV[5]
    for index, window in ipairs(windows) do
        add(index, window, tonumber(ARGV[5]), -tonumber(ARGV[2]))
    end
    return {0, 0, now}
end

if verb == 'rebuild' then  -- ARGV[5]: for each window a list of [slot, calls]
    if redis.call('HGET', state, 'shape') ~= ARGV[4] then
        redis.call('DEL', state)
        for index, window in ipairs(cjson.decode(ARGV[5])) do
            for _, pair in ipairs(window) do
                redis.call('HSET', state, 'w' .. index .. ':' .. pair[1], pair[2])
            end
        end
        redis.call('HSET', state, 'shape', ARGV[4])
    end
    return {0, 0, now}
end

-- grant
if redis.call('HGET', state, 'shape') ~= ARGV[4] then
    -- Lost, or the limits were changed. Grants that are out may still be used for `life` ms and are
    -- on no record yet: wait that long, then ask for the record to be read.
    local since = tonumber(redis.call('HGET', state, 'lost_at') or '0')
    if since == 0 then
        redis.call('HSET', state, 'lost_at', now)
        since = now
    end
    if now - since < life then
        return {0, life - (now - since), now}
    end
    return {-1, 0, now}
end

local paused = tonumber(redis.call('HGET', state, 'paused_until') or '0')
if paused > now then
    return {0, paused - now, now}
end

local granted = tonumber(ARGV[2])
local wait = 0
local remaining = math.huge
for index, window in ipairs(windows) do
    local found, sum, width = counted(index, window)
    local free = window[1] - sum
    remaining = math.min(remaining, free)
    if free < granted then
        granted = math.max(free, 0)
    end
    if free <= 0 and found[1] then
        wait = math.max(wait, (found[1][1] + 1) * width + window[2] + life - now)
    end
end
if granted > 0 then
    for index, window in ipairs(windows) do
        add(index, window, now, granted)
    end
    wait = 0
end
redis.call('SET', KEYS[2], math.max(remaining - granted, 0), 'PX', windows[1][2])
return {granted, wait, now}
