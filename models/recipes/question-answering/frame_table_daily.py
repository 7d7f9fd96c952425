"""Frames of software, cooking, travel, contests, appointments, health, weather and rules.

Each line is a general way to say and to ask a thing. None was made from the questions in questions.json.
"""

from __future__ import annotations

from frames import Frame, frame

SOFTWARE: list[Frame] = [
    frame("program", "what:program lang:language port:port file:file opt:option span:span0 limit:count other:program code:port",
        "The {what} is written in {lang}.|The {what} listens on port {port} by default.|The {what} reads its settings from {file}.|The {what} stores its data in {file}.|"
        "Use {opt} to start the {what} without the {other}.|The {what} deletes old entries after {span}.|The {what} sends its results to the {other}.|"
        "The {what} accepts at most {limit} connections.|When the {what} fails, the {other} returns error {code}.|The option {opt} makes the {what} wait for the {other}.|"
        "The {what} was written in {lang} and keeps its log in {file}.",
        {"lang": "What language is the {what} written in?|In which language was the {what} written?", "port": "Which port does the {what} use?|What port does the {what} listen on?",
         "file": "Where does the {what} store its data?|Which file does the {what} read?|Where are the settings of the {what}?|Where is the log of the {what} kept?",
         "opt": "Which option makes the {what} wait?|Which option starts the {what} without the {other}?|What do you use to start the {what} without the {other}?",
         "span": "When does the {what} delete old entries?|How long are entries of the {what} kept?", "limit": "How many connections does the {what} accept?|What is the maximum number of connections of the {what}?",
         "other": "What does the {what} wait for?|Where does the {what} send its results?", "code": "Which error is returned when the {what} fails?", "what": "What is written in {lang}?|What listens on port {port}?|Which program reads {file}?"},
        "The {what1} listens on port {port1} and the {what2} on port {port2}.|The {what1} is written in {lang1}, the {what2} in {lang2}.|While the {what1} uses {file1}, the {what2} uses {file2}.|"
        "{opt1} starts the {what1}, {opt2} the {what2}."),
    frame("release", "what:name version:version when:time who:agent lang:language licence:licence need:program",
        "Version {version} of {what} was released {when}.|{what} {version} needs a {need}.|{what} is a {need} written by {who}.|{what} is distributed under the {licence} licence.|{what} is maintained by {who}.",
        {"version": "Which version of {what} was released {when}?", "when": "When was version {version} of {what} released?", "who": "Who wrote {what}?|Who maintains {what}?|Who is the maintainer of {what}?",
         "licence": "Under which licence is {what} distributed?|What is the licence of {what}?", "need": "What does {what} need?|What is {what}?"},
        "{what1} is maintained by {who1}, {what2} by {who2}.|{what1} is a {need1}, while {what2} is a {need2}."),
    frame("control", "part:thing key:keyname act:verbing state:state",
        "Press the {key} key to {act} {part}.|Turn the {key} knob to the left to {act} {part}.|The {key} switch is used to {act} {part}.|When {part} is {state}, press the {key} key.",
        {"key": "Which key must be pressed to {act} {part}?|Which knob is turned to {act} {part}?|Which switch is used to {act} {part}?", "act": "What does the {key} key do?"},
        "The {key1} key is used to {act1} {part1} and the {key2} key to {act2} {part2}."),
]  # fmt: skip

KITCHEN: list[Frame] = [
    frame("dish", "what:food other:food third:food amount:weight much:volume n:count heat:heat span:span0 dish:name tool:tool",
        "Mix {amount} of {what} with {much} of {other}.|Add {amount} of {what} and stir.|Bake it at {heat} for {span}.|Cook the {what} for {span}.|Fry the {what} in {other} until brown.|"
        "Let the {what} rest for {span}.|{dish} is a dish of {what}, {other} and {third}.|{dish} is made from {what} and {other}.|Cut the {what} {tool} and add the {other}.|You need {n} spoons of {what} and {much} of {other}.|"
        "Preheat the oven to {heat}.|Simmer the {what} with the {other} for {span}, then add {amount} of {third}.",
        {"amount": "How much {what} is needed?|How much {what} do you need?|How much {what} should be added?|How much {third} is added?", "much": "How much {other} do you need?|How much {other} is used?",
         "heat": "At what temperature should it be baked?|How hot should the oven be?|At what temperature is it baked?", "span": "How long should the {what} cook?|How long does the {what} cook?|For how long should it be baked?|How long must the {what} rest?|How long is the {what} simmered?",
         "n": "How many spoons of {what} do you need?", "other": "What is the {what} fried in?|What should be mixed with the {what}?|What is added to the {what}?", "tool": "What do you cut the {what} with?|What is used to cut the {what}?", "dish": "Which dish is made from {what}?"},
        "Take {amount1} of {what1} and {amount2} of {what2}.|Cook the {what1} for {span1} and the {what2} for {span2}.|The {what1} takes {span1}, the {what2} {span2}."),
]  # fmt: skip

TRAVEL: list[Frame] = [
    frame("departure", "v:vehicle town:city from:city at:clock arrive:clock n:count span:span0 day:weekday place:place cost:money",
        "The {v} to {town} leaves {at} from platform {n}.|The {v} leaves {from} {at} and arrives in {town} {arrive}.|The {v} to {town} takes {span}.|The first {v} to {town} departs {at}.|There is no {v} to {town} {day}.|"
        "The journey from {from} to {town} by {v} takes {span} and costs {cost}.|You can reach {town} by {v} in {span}.|The {v} for {town} stops {place}.|The {v} to {town} runs every {span}.",
        {"at": "When does the {v} to {town} leave?|What time does the {v} leave {from}?|At what time does the {v} to {town} depart?|When does the first {v} to {town} leave?", "arrive": "When does the {v} arrive in {town}?|What time does the {v} reach {town}?",
         "n": "From which platform does the {v} to {town} leave?", "span": "How long does the {v} to {town} take?|How long is the journey to {town}?|How often does the {v} to {town} run?", "day": "On which day is there no {v} to {town}?",
         "cost": "How much does the journey to {town} cost?", "v": "How can you reach {town}?|How do you get to {town}?", "place": "Where does the {v} for {town} stop?", "town": "Where does the {v} from {from} go?"},
        "The {v1} to {town1} leaves {at1}, the {v2} to {town2} {at2}.|The {v1} to {town1} takes {span1}, but the {v2} to {town2} takes {span2}."),
    frame("hours", "what:structure open:clock close:clock day:weekday who:group place:place cost:money other:structure",
        "{what} opens {open} and closes {close}.|{what} is closed {day}.|{what} is open from Tuesday until the weekend.|{who} can visit {what} free of charge.|{what} opens {open} every day, but {day} only {close}.|{other} opens {open}.",
        {"open": "When does {what} open?|At what time does {what} open?|When does {other} open?", "close": "When does {what} close?|At what time does {what} close?", "day": "On which day is {what} closed?|When is {what} closed?", "what": "What opens {open}?|What is closed {day}?", "who": "Who can visit {what} for free?|Who need not pay for {what}?"},
        "{what1} opens {open1}, {what2} {open2}.|{what1} is closed {day1} and {what2} {day2}."),
    frame("meeting", "what:event day:weekday oldday:dayname at:clock place:place who:person new:weekday newday:dayname why:cause other:person span:span0 topic:work n:count",
        "{what} will take place {day} {at} {place}.|{what} is {day}.|{what}, first planned for {oldday}, was postponed to {newday}.|{what} was cancelled because of {why}.|{who} will open {what}, and {other} will give a talk on {topic}.|{what} lasted {span}.|{what} starts {at}.|"
        "{n} people came to {what}.|{what} has been postponed until {newday} because of {why}.|Instead of {day}, {what} will now be held {new}.",
        {"oldday": "On what day was {what} planned at first?", "day": "When will {what} take place?|On which day is {what}?", "newday": "To which day was {what} moved?|When is the new date of {what}?|Until when was {what} postponed?", "at": "At what time does {what} start?|When does {what} start?|What time is {what}?", "place": "Where will {what} take place?|Where is {what} held?|Where is {what}?",
         "who": "Who will open {what}?|Who opens {what}?", "other": "Who will give a talk on {topic}?|Who speaks about {topic}?", "why": "Why was {what} cancelled?|Why was {what} postponed?|What was the reason for cancelling {what}?", "span": "How long did {what} last?|How long did {what} take?", "n": "How many people came to {what}?|How many people attended {what}?", "new": "On which day will {what} be held?", "topic": "What will {other} talk about?"},
        "{what1} is {day1} and {what2} {day2}.|{what1} starts {at1}, {what2} {at2}.|{what1} is held {place1}, whereas {what2} is {place2}.|{who1} leads {what1} and {who2} {what2}."),
]  # fmt: skip

CONTEST: list[Frame] = [
    frame("match", "a:city b:city score:score who:person other:person n:count minute:count day:weekday keeper:person place:place cup:work",
        "{a} beat {b} {score} {day}.|{a} defeated {b} {score}.|{b} lost to {a} {place}.|{who} scored {n} goals for {a} against {b}.|{who} scored in minute {minute}.|The final between {a} and {b} ended {score}; {who} scored for {a}.|"
        "{who} won the race ahead of {other}.|{a} won {cup} after a victory over {b}.|{keeper} was injured and replaced by {other}.|{who} finished first, {other} came second.|{a} led {score} at half-time.|{who} was named player of the match.",
        {"a": "Who won the match?|Which team won the match?|Who beat {b}?|Which team defeated {b}?|Who won {cup}?|Which team did {who} score for?", "b": "Who lost the match?|Which team lost?|Who did {a} beat?|Whom did {a} defeat?|Which team lost to {a}?",
         "score": "What was the score?|What was the result of the match between {a} and {b}?|How did the final end?", "who": "Who scored for {a}?|Who won the race?|Who finished first?|Who scored in minute {minute}?|Who was player of the match?", "n": "How many goals did {who} score?|How many goals were scored by {who}?", "keeper": "Who was injured?|Whom did {other} replace?",
         "other": "Who came second?|Who replaced {keeper}?", "day": "When did {a} beat {b}?", "place": "Where did {a} beat {b}?"},
        "{a1} beat {b1} {score1} and {a2} beat {b2} {score2}.|{who1} scored {n1} goals, {who2} {n2}."),
]  # fmt: skip

HEALTH_AND_RULES: list[Frame] = [
    frame("medicine", "ill:illness name:name n:count span:span0 drink:food who:group bad:illness max:count",
        "{name} is used against {ill}.|Take {n} tablets of {name} a day.|The usual dose of {name} is {n} drops.|{name} may cause {bad}.|Do not take {name} for more than {span}.|Take {name} with {drink}.|No more than {max} drops of {name} should be taken.|The main symptoms are {ill} and {bad}.",
        {"ill": "What is {name} used for?|What is {name} used against?", "n": "How many tablets of {name} should you take?|What is the usual dose of {name}?", "bad": "What can {name} cause?|What is a side effect of {name}?", "span": "How long can {name} be taken?|For how long may you take {name}?",
         "drink": "What should {name} be taken with?", "max": "How many drops of {name} can be taken at most?|What is the maximum number of drops?", "name": "What is used against {ill}?|Which medicine causes {bad}?"},
        "{name1} helps against {ill1}, {name2} against {ill2}.|Take {n1} tablets of {name1} and {n2} of {name2}."),
    frame("weather", "place:city heat:heat rain:volume wind:windspeed day:weekday other:city kind:sky kind2:sky",
        "In {place} it will be {heat}.|Temperatures in {place} reach {heat}.|{day} it will be {kind} in {place}.|Winds of {wind} are expected in {place}.|{place} expects {kind} weather {day}.|The forecast for {place} is {kind} and {heat}.",
        {"heat": "How warm will it be in {place}?|What is the temperature in {place}?|How hot does it get in {place}?|How cold is it in {place}?", "kind": "What will the weather be like in {place}?", "wind": "How strong is the wind in {place}?|How fast is the wind in {place}?",
         "day": "When will it be {kind} in {place}?|On which day will it be {kind}?", "place": "Where will it be {heat}?|Where will it be {kind}?"},
        "{place1} has {heat1}, {place2} {heat2}.|It is {kind1} in {place1} but {kind2} in {place2}.|{day1} will be {kind1}, {day2} {kind2}."),
    frame("rule", "who:group what:thing place:place span:span0 cost:money when:time why:reason other:group",
        "{who} must not use {what} {place}.|{who} may use {what} free of charge.|{who} need a permit for {what}, whereas {other} do not.|Whoever damages {what} must pay {cost}.|{who} are allowed to use {what} for {span}.|{what} must not be touched {why}.|Only {who} may touch {what}.",
        {"who": "Who must not use {what}?|Who may use {what}?|Who needs a permit for {what}?|Who is allowed to use {what}?", "what": "What must {who} not use?|What may {who} use?|What do {who} need a permit for?", "cost": "How much must be paid for damaging {what}?|What is the fine for damaging {what}?", "span": "How long may {who} use {what}?", "why": "Why must {what} not be touched?", "other": "Who does not need a permit for {what}?"},
        "{who1} may use {what1}, {who2} {what2}.|{who1} pay {cost1} while {who2} pay {cost2}."),
    frame("war", "a:country b:country from:year to:year place:city who:person span:span0 land:name",
        "The war between {a} and {b} began {from} and ended {to}.|The war between {a} and {b} lasted {span}.|{who} led the army of {a} in the battle of {place}.|After the war {land} fell to {a}.|{who}, king of {a}, conquered {place} {from}.",
        {"from": "When did the war begin?|When did the war start?|In which year did the war between {a} and {b} break out?|When was {place} conquered?", "to": "When did the war end?|In what year was the war between {a} and {b} over?", "span": "How long did the war last?", "place": "Which city did {who} conquer?",
         "who": "Who led the army of {a}?|Who conquered {place}?|Who was king of {a}?", "land": "What fell to {a} after the war?", "a": "Which country got {land}?|Which country fought against {b}?"},
        "{a1} joined the war {from1} and {a2} {from2}.|{who1} ruled {a1}, {who2} {a2}."),
    frame("extreme", "big:name small:name kind:place_kind other:name",
        "{big} is the largest {kind} in the region, while {small} is the smallest.|The oldest {kind} is {big} and the newest is {small}.|{big} is larger than {small}.|{big} is the tallest {kind}; {other} comes second.|Of the two, {big} is the older {kind} and {small} the more famous one.",
        {"big": "Which {kind} is the largest?|What is the largest {kind}?|What is the oldest {kind}?|Which is the tallest {kind}?|Which {kind} is older?", "small": "Which {kind} is the smallest?|What is the smallest {kind}?|What is the newest {kind}?|Which {kind} is more famous?", "other": "Which {kind} comes second?"}),
]  # fmt: skip
