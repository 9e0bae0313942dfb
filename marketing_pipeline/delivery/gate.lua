-- How many of ARGV[2] calls may this provider take now, and if none, in how many milliseconds?
--
-- Each window counts grants in slots of a twentieth of its length, on this server's clock. A grant
-- may be used until it is `life` ms old, so what reaches the provider within any span of a window's
-- length was granted within that span plus `life` plus one slot: that much is summed, and the sum
-- never exceeds the limit. What the provider itself said is left bounds it further, and the breaker
-- lets nothing through, or single probes, while too many calls fail.
--
-- KEYS: state (hash), remaining (string that people read)
-- ARGV: verb, n, windows as JSON [[calls, ms], ...], rules as JSON {life, lease, failures, share,
--       over, at_least, open_for, longest}, then what the verb wants
--   grant, report   n, reports as JSON [[generation, granted at, 'f'|'h'|'u', [[window, remaining,
--                   resets in ms], ...]], ...]: f failed, h healthy, u not called after all
--   give_back       n, granted at, generation
--   rebuild         lost at, record as JSON: for each window a list of [slot, calls], pause in ms
--   pause           ms
--   lift            0
-- Answers {granted, wait ms, now ms, generation, breaker, until}. Where granted is -1 the state is
-- lost, the reports were not taken, and once wait is 0 it must be rebuilt as `lost at` generation.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verb, number = ARGV[1], tonumber(ARGV[2])
local windows, rules = cjson.decode(ARGV[3]), cjson.decode(ARGV[4])
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local SLOTS = 20  -- of a window, and of the breaker's share
local TOLERANCE = 1000  -- ms by which two tellings of one reset differ: headers have whole seconds

-- The state is read once and written once.
local state, counts, changed, gone = {}, {}, {}, {}  -- counts: of a prefix, by slot
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
    local prefix, slot = string.match(fields[at], '^(%l%d*:)(%d+)$')
    if prefix then
        counts[prefix] = counts[prefix] or {}
        counts[prefix][tonumber(slot)] = tonumber(fields[at + 1])
    else
        state[fields[at]] = fields[at + 1]
    end
end

local function get(name)
    return tonumber(state[name]) or 0
end

local function set(name, value)
    state[name], changed[name], gone[name] = value, value, nil
end

local function drop(name)
    if state[name] then
        state[name], changed[name], gone[name] = nil, nil, true
    end
end

local function write()
    local puts, drops = {}, {}
    for name, value in pairs(changed) do
        table.insert(puts, name)
        table.insert(puts, value)
    end
    for name in pairs(gone) do
        table.insert(drops, name)
    end
    if #puts > 0 then
        redis.call('HSET', KEYS[1], unpack(puts))
    end
    if #drops > 0 then
        redis.call('HDEL', KEYS[1], unpack(drops))
    end
end

local function answer(granted, wait, generation)
    write()
    local breaker = state['breaker'] or 'closed'
    return {granted, wait, now, generation or get('generation'), breaker, get('until')}
end

local function width(span)
    return math.max(1, math.ceil(span / SLOTS))
end

local function add(prefix, slot, calls)
    counts[prefix] = counts[prefix] or {}
    counts[prefix][slot] = (counts[prefix][slot] or 0) + calls
    changed[prefix .. slot], gone[prefix .. slot] = counts[prefix][slot], nil
end

-- Counts of a prefix, the oldest first, and their sum; those before the slot `oldest` are forgotten.
local function tally(prefix, oldest)
    local found, sum = {}, 0
    for slot, calls in pairs(counts[prefix] or {}) do
        if slot < oldest then
            counts[prefix][slot] = nil
            changed[prefix .. slot], gone[prefix .. slot] = nil, true
        else
            table.insert(found, {slot, calls})
            sum = sum + calls
        end
    end
    table.sort(found, function(a, b) return a[1] < b[1] end)
    return found, sum
end

local function counted(index)
    local span = windows[index][2]
    return tally('w' .. index .. ':', math.floor((now - span - rules.life) / width(span)))
end

local function count(at, calls)
    for index, window in ipairs(windows) do
        add('w' .. index .. ':', math.floor(at / width(window[2])), calls)
    end
end

-- Grants that were made since then; nil where the slots do not reach back so far.
local function granted_since(at)
    local longest = 1
    for index, window in ipairs(windows) do
        if window[2] > windows[longest][2] then
            longest = index
        end
    end
    if at < now - windows[longest][2] - rules.life then
        return nil
    end
    local first, sum = math.floor(at / width(windows[longest][2])), 0
    for _, one in ipairs((counted(longest))) do
        if one[1] >= first then
            sum = sum + one[2]
        end
    end
    return sum
end

-- What providers say is left: a field `l:name` each, {left, ends, granted at}.
local function bounds()
    local known = {}
    for name, value in pairs(state) do
        if string.sub(name, 1, 2) == 'l:' then
            known[name] = cjson.decode(value)
        end
    end
    for name, bound in pairs(known) do
        if bound[2] <= now then
            drop(name)
            known[name] = nil
        end
    end
    return known
end

-- The call granted at `made` was counted by the provider; whatever was granted from `life` before
-- it on may not have been. So each telling is a lower bound, and of two the larger is true as well.
local function learn(made, window, remaining, span)
    local ends = now + span
    if remaining <= 0 then
        set('held_until', math.max(get('held_until'), ends))
        return
    end
    local since = granted_since(made - rules.life)
    if not since then
        return
    end
    local name, left = 'l:' .. window, remaining - since + 1
    local known = bounds()[name]
    if known and (ends < known[2] - TOLERANCE or ends <= known[2] + TOLERANCE and left <= known[1]) then
        return
    end
    set(name, cjson.encode({left, ends, made}))
end

-- A new generation: what was granted under an older one no longer counts.
local function turn(breaker)
    set('breaker', breaker)
    set('generation', math.max(now, get('generation') + 1))
    set('row', 0)
    tally('c:', math.huge)
    tally('f:', math.huge)
end

local function open(span)
    turn('open')
    set('open_for', span)
    set('until', now + span)
end

local function failed()
    if state['breaker'] == 'half_open' then
        open(math.min(get('open_for') * 2, rules.longest))
        return
    end
    local slot = math.floor(now / width(rules.over))
    local oldest = math.floor((now - rules.over) / width(rules.over))
    set('row', get('row') + 1)
    add('c:', slot, 1)
    add('f:', slot, 1)
    local _, calls = tally('c:', oldest)
    local _, failures = tally('f:', oldest)
    if get('row') >= rules.failures or (calls >= rules.at_least and failures > rules.share * calls) then
        open(rules.open_for)
    end
end

local function healthy()
    if state['breaker'] == 'half_open' then
        turn('closed')
        return
    end
    set('row', 0)
    add('c:', math.floor(now / width(rules.over)), 1)
end

local function take(reports)
    for _, report in ipairs(reports) do
        if report[1] == get('generation') then
            if report[3] == 'f' then
                failed()
            elseif report[3] == 'h' then
                healthy()
            elseif state['breaker'] == 'half_open' then  -- the probe was not made: the next may
                set('until', now)
            end
        end
        for _, told in ipairs(report[4]) do
            learn(report[2], told[1], told[2], told[3])
        end
    end
end

if verb == 'pause' then
    set('paused_until', math.max(get('paused_until'), now + number))
    return answer(0, 0)
end

if verb == 'lift' then  -- a person says so: the breaker tries at once, as it would by itself later
    drop('paused_until')
    drop('held_until')
    for name in pairs(bounds()) do
        drop(name)
    end
    if state['breaker'] == 'open' then
        set('until', now)
    end
    return answer(0, 0)
end

-- Lost, or the limits were changed, or the server began anew, perhaps from a file that lacks the
-- last second. Grants that are out may still be used for `life` ms and are on no record yet: nobody
-- is granted anything until that long has passed and the record was read.
local sound = state['shape'] == ARGV[3] and state['server'] == server and not state['lost_at']

if verb == 'rebuild' then
    if state['lost_at'] and get('lost_at') == number then
        local record = cjson.decode(ARGV[5])
        local kept = {paused_until = true, held_until = true, generation = true}
        for at = 1, #fields, 2 do
            if not kept[fields[at]] then
                state[fields[at]], gone[fields[at]] = nil, true
            end
        end
        counts = {}
        for index, slots in ipairs(record) do
            for _, pair in ipairs(slots) do
                add('w' .. index .. ':', pair[1], pair[2])
            end
        end
        set('shape', ARGV[3])
        set('server', server)
        set('paused_until', math.max(get('paused_until'), now + tonumber(ARGV[6])))
        turn('closed')
    end
    return answer(0, 0)
end

if verb == 'give_back' then
    if sound and tonumber(ARGV[6]) == get('generation') then
        local made = tonumber(ARGV[5])
        count(made, -number)
        for name, bound in pairs(bounds()) do
            if made >= bound[3] - rules.life then  -- else it was never taken off
                set(name, cjson.encode({bound[1] + number, bound[2], bound[3]}))
            end
        end
        if state['breaker'] == 'half_open' then
            set('until', now)
        end
    end
    return answer(0, 0)
end

if not sound then
    if not state['lost_at'] then
        set('lost_at', now)
    end
    return answer(-1, math.max(get('lost_at') + rules.life - now, 0), get('lost_at'))
end

take(cjson.decode(ARGV[5]))

local wanted = verb == 'grant' and number or 0
local free, wait = math.huge, 0
for index, window in ipairs(windows) do
    local found, sum = counted(index)
    free = math.min(free, window[1] - sum)
    if window[1] <= sum then
        for _, one in ipairs(found) do
            if one[2] > 0 then
                wait = math.max(wait, (one[1] + 1) * width(window[2]) + window[2] + rules.life - now)
                break
            end
        end
    end
end
local known = bounds()
for _, bound in pairs(known) do
    free = math.min(free, bound[1])
    if bound[1] <= 0 then
        wait = math.max(wait, bound[2] - now)
    end
end
if get('held_until') > now then
    free = 0
    wait = math.max(wait, get('held_until') - now)
end
local granted = math.max(math.min(wanted, free), 0)
if get('paused_until') > now then
    granted, wait = 0, math.max(wait, get('paused_until') - now)
end
if state['breaker'] ~= 'closed' then
    if get('until') > now then
        granted, wait = 0, math.max(wait, get('until') - now)
    else
        granted = math.min(granted, 1)
    end
end
if granted > 0 then
    if state['breaker'] ~= 'closed' then  -- one probe, until its lease runs out
        turn('half_open')
        set('until', now + rules.lease)
    end
    count(now, granted)
    for name, bound in pairs(known) do
        set(name, cjson.encode({bound[1] - granted, bound[2], bound[3]}))
    end
    wait = 0
end
local longest = rules.life
for _, window in ipairs(windows) do
    longest = math.max(longest, window[2] + rules.life)
end
redis.call('SET', KEYS[2], math.max(free - granted, 0), 'PX', longest)
return answer(granted, wait)
