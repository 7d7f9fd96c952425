"""Frames of facts: people, places, prices, measures, rules, machines, meals, time-tables, definitions, contests.

Each line is a general way to say and to ask a thing. None was made from the questions in questions.json.
"""

from __future__ import annotations

from frames import Frame, frame

PEOPLE: list[Frame] = [
    frame("birth", "who:person place:city when:time town:city end:time",
        "{who} was born {when} in {place}.|{who} was born in {place}.|Born in {place} {when}, {who} grew up in {town}.|"
        "{who} was born {when} and died {end}.|{who} was born in {place} {when} and died in {town} {end}.|"
        "{who}, who was born in {place}, died in {town} {end}.",
        {"place": "Where was {who} born?|In which city was {who} born?|What is the birthplace of {who}?|Where does {who} come from?",
         "when": "When was {who} born?|What is {who}'s date of birth?", "end": "When did {who} die?|When was the death of {who}?",
         "who": "Who was born in {place}?|Who was born {when}?", "town": "Where did {who} die?|Where did {who} grow up?"},
        "{who1} was born in {place1}, {who2} in {place2}.|While {who1} comes from {place1}, {who2} was born in {place2}."),
    frame("home", "who:person place:city span:span job:profession",
        "{who} has lived in {place} {span}.|{who} lives in {place} and works as {job}.|{who} is {job} from {place}.|"
        "My name is {who} and I live in {place}.|{who}, {job}, moved to {place}.",
        {"place": "Where does {who} live?|In which city does {who} live?|Where is {who}'s home?",
         "span": "How long has {who} lived in {place}?|For how long has {who} lived there?",
         "job": "What is {who}'s job?|What does {who} do for a living?|What is the profession of {who}?",
         "who": "Who lives in {place}?|Who works as {job}?"},
        "{who1} lives in {place1} and {who2} in {place2}.|{who1} works as {job1}, whereas {who2} is {job2}."),
    frame("study", "who:person field:field place:city when:time",
        "{who} studied {field} in {place}.|{who} studied {field} at the University of {place} and graduated {when}.|"
        "After school {who} went to {place} to study {field}.",
        {"field": "What did {who} study?|Which subject did {who} study?|What was {who}'s field of study?",
         "place": "Where did {who} study?|Where did {who} go to university?", "when": "When did {who} graduate?",
         "who": "Who studied {field}?|Who studied in {place}?"},
        "{who1} studied {field1} in {place1}, while {who2} read {field2} in {place2}."),
    frame("family", "who:person other:person count:count place:city",
        "{who} married {other} in {place}.|{who} and {other} have {count} children.|{who} is married to {other}.|"
        "{who}'s sister {other} lives in {place}.|{who} had {count} children with {other}.",
        {"other": "Who did {who} marry?|Whom did {who} marry?|Who is {who}'s sister?|Who is {who} married to?",
         "count": "How many children does {who} have?|How many children did {who} and {other} have?",
         "place": "Where did {who} get married?|Where did the wedding of {who} and {other} take place?"}),
    frame("age", "who:person age:count", "{who} is {age} years old.|{who} turned {age} last week.|At the age of {age}, {who} retired.",
        {"age": "How old is {who}?|What is {who}'s age?|At what age did {who} retire?", "who": "Who is {age} years old?"},
        "{who1} is {age1}, {who2} {age2}.|{who1} is {age1} years old and {who2} is {age2}."),
    frame("office", "who:person role:role org:org next:person when:time last:person role2:rolename",
        "{who} became {role} of {org} {when}.|{org} is led by {who}.|{who} will take over from {last} as {role} of {org} {when}.|"
        "{last} resigned {when} and was replaced by {who}.|{who}, {role} of {org}, said that {next} will follow {when}.|"
        "{last} retires {when}; {who} has been named as the new {role2} of {org}.",
        {"who": "Who leads {org}?|Who is {role} of {org}?|Who replaced {last}?|Who took over from {last}?|Who heads {org}?|"
         "Who is the successor of {last}?|Who will follow {last}?",
         "when": "When did {who} become {role}?|When did {last} resign?|When will {who} take over?",
         "last": "Who was replaced by {who}?|Who held the post before {who}?|Who is leaving {org}?",
         "org": "Which organisation does {who} lead?|Where does {who} work?"},
        "{who1} runs {org1}, while {org2} is headed by {who2}.|{org1} is led by {who1} and {org2} by {who2}."),
    frame("employment", "who:person org:org role:profession place:city",
        "{who} works as {role} at {org}.|{who} has joined {org} in {place} as {role}.|{org} hired {who} as {role}.",
        {"org": "Where does {who} work?|Which company does {who} work for?|Who employs {who}?", "who": "Who works at {org}?|Whom did {org} hire?",
         "role": "What does {who} do at {org}?|What is {who}'s position?"},
        "{who1} works for {org1} and {who2} for {org2}."),
    frame("pet", "who:person beast:beast name:name colour:colour",
        "{who} has a {colour} {beast} called {name}.|{who}'s {beast} is named {name}.|A {colour} {beast} named {name} belongs to {who}.",
        {"name": "What is the name of {who}'s {beast}?|What is the {beast} called?|What is {who}'s {beast} called?", "who": "Who has a {beast}?|Who owns {name}?|Whose {beast} is {name}?",
         "colour": "What colour is the {beast}?|What color is {name}?", "beast": "What kind of animal is {name}?|Which pet does {who} have?"},
        "{who1} has a {beast1} called {name1}, and {who2} a {beast2} named {name2}."),
    frame("prize", "who:person prize:work when:time work:work",
        "{who} won {prize} Prize {when}.|{prize} Prize went to {who} for the novel {work}.|{when}, {who} received {prize} Award.",
        {"who": "Who won {prize} Prize?|Who received {prize} Award?|Who got {prize} Prize?", "when": "When did {who} win {prize} Prize?",
         "work": "For which novel did {who} receive {prize} Prize?"}),
]  # fmt: skip

PLACES: list[Frame] = [
    frame("measure", "what:structure long:length tall:length heavy:weight area:area",
        "{what} is {tall} tall.|{what} is {long} long and {tall} high.|{what} has a height of {tall} and weighs {heavy}.|"
        "With a length of {long}, {what} is the longest in the country.|{what} covers {area}.|{what} weighs about {heavy}.",
        {"tall": "How tall is {what}?|How high is {what}?|What is the height of {what}?",
         "long": "How long is {what}?|What is the length of {what}?", "heavy": "How much does {what} weigh?|How heavy is {what}?",
         "area": "How large is {what}?|What area does {what} cover?", "what": "What is {long} long?|What weighs {heavy}?"},
        "{what1} is {tall1} tall, {what2} only {tall2}.|{what1} weighs {heavy1} and {what2} {heavy2}.|"
        "{what1} is {long1} long, whereas {what2} measures {long2}."),
    frame("site", "what:structure place:place other:structure person:person when:time",
        "{what} stands {place}.|{what} is located {place}, not far from {other}.|{what} lies {place} and was designed by {person}.|"
        "{what}, built {when}, is {place}.|You will find {what} {place}.",
        {"place": "Where is {what}?|Where does {what} stand?|Where can {what} be found?|Where is {what} located?",
         "what": "What stands {place}?|Which building is {place}?|What lies {place}?|What was designed by {person}?",
         "person": "Who designed {what}?|Who was the architect of {what}?", "when": "When was {what} built?", "other": "What is {what} close to?"},
        "{what1} is {place1}, while {what2} is {place2}.|{what1} stands {place1} and {what2} {place2}."),
    frame("population", "place:city people:count org:country when:year",
        "{place} has a population of {people}.|About {people} people live in {place}.|{place} in {org} had {people} inhabitants {when}.",
        {"people": "How many people live in {place}?|What is the population of {place}?|How many inhabitants does {place} have?",
         "org": "In which country is {place}?", "place": "Which city has {people} inhabitants?|Where do {people} people live?"},
        "{place1} has {people1} inhabitants, {place2} {people2}."),
    frame("made", "what:thing stuff:material colour:colour owner:person",
        "{what} is made of {stuff}.|{what} is painted {colour}.|{what} of {owner} is {colour} and made of {stuff}.|{what} belongs to {owner}.",
        {"stuff": "What is {what} made of?|Which material is {what} made of?", "colour": "What colour is {what}?|What color is {what}?",
         "owner": "Who owns {what}?|To whom does {what} belong?|Whose is {what}?", "what": "What is made of {stuff}?|What is {colour}?|What belongs to {owner}?"},
        "{what1} is made of {stuff1}, {what2} of {stuff2}.|{what1} is {colour1}, but {what2} is {colour2}.|{what1} belongs to {owner1} and {what2} to {owner2}."),
    frame("river", "what:name long:length place:city sea:name country:country",
        "The {what} is a river in {country} that flows through {place} into the {sea} Sea.|The river {what} is {long} long.|"
        "The {what} rises near {place} and reaches the sea after {long}.",
        {"long": "How long is the {what}?", "place": "Which city does the {what} flow through?|Where does the {what} rise?", "what": "Which river flows through {place}?",
         "sea": "Into which sea does the {what} flow?", "country": "In which country is the {what}?"}),
    frame("wildlife", "beast:animal place:place food:food other:animal span:span",
        "{beast} lives {place} and feeds on {food}.|{beast} eats mainly {food}.|{beast} is hunted by {other}.|{beast} can live {span}.",
        {"place": "Where does {beast} live?", "food": "What does {beast} eat?|What does {beast} feed on?", "span": "How long does {beast} live?|What is the lifespan of {beast}?",
         "other": "Which animal hunts {beast}?", "beast": "Which animal feeds on {food}?|Which animal lives {place}?"},
        "{beast1} eats {food1}, whereas {beast2} prefers {food2}.|{beast1} lives {place1}, {beast2} {place2}."),
    frame("substance", "what:substance stuff:material heat:heat speed:speed cause:clause",
        "{what} melts at {heat}.|In {stuff}, the speed of {what} is {speed}.|{what} moves through {stuff} at {speed}.|{what} is stored in {stuff} because {cause}.|"
        "{what} boils at {heat} and freezes at a lower temperature.",
        {"heat": "At what temperature does {what} melt?|At what temperature does {what} boil?", "speed": "How fast does {what} move through {stuff}?|What is the speed of {what} in {stuff}?",
         "cause": "Why is {what} stored in {stuff}?", "stuff": "What is {what} stored in?"},
        "{what1} boils at {heat1}, {what2} at {heat2}."),
]  # fmt: skip

TRADE: list[Frame] = [
    frame("price", "what:newthing cost:money place:place who:person",
        "{what} costs {cost}.|The price of {what} is {cost}.|{what} is sold {place} for {cost}.|{who} paid {cost} for {what}.|You can buy {what} {place}; it costs {cost}.",
        {"cost": "How much does {what} cost?|What is the price of {what}?|How much did {who} pay for {what}?|How expensive is {what}?|How much is {what}?",
         "place": "Where can you buy {what}?|Where is {what} sold?", "what": "What costs {cost}?|What did {who} buy?", "who": "Who paid {cost}?|Who bought {what}?"},
        "{what1} costs {cost1}, {what2} {cost2}.|{what1} is {cost1} and {what2} {cost2}.|While {what1} costs {cost1}, {what2} can be had for {cost2}."),
    frame("fee", "event:event cost:money kids:money place:place",
        "Admission to {event} is {cost}.|Tickets for {event} cost {cost} and are available {place}.|Adults pay {cost} and children {kids}.|The entrance fee is {cost}; students pay {kids}.",
        {"cost": "How much are tickets for {event}?|How much do adults pay?|How much is the entrance fee?|What does admission to {event} cost?", "kids": "How much do children pay?|What do students pay?",
         "place": "Where can you get tickets for {event}?"}),
    frame("company", "org:org place:city who:person when:time staff:count rev:money pct:percent",
        "{org} was founded by {who} {when}.|{org} has its headquarters in {place} and employs {staff} people.|{org}, based in {place}, was set up {when}.|"
        "Sales of {org} rose by {pct} to {rev}.|Profits at {org} fell by {pct}.|{org} plans to open a branch in {place} {when}.",
        {"who": "Who founded {org}?|Who is the founder of {org}?|Who set up {org}?|Who established {org}?", "when": "When was {org} founded?|When was {org} set up?|When will {org} open a branch?",
         "place": "Where is {org} based?|Where are the headquarters of {org}?|Where does {org} have its head office?|In which city does {org} plan a branch?",
         "staff": "How many people does {org} employ?|How many people work at {org}?|How many employees does {org} have?",
         "rev": "How high were the sales of {org}?", "pct": "By how much did the sales of {org} rise?|By how much did profits at {org} fall?", "org": "Which company did {who} found?|Which company is based in {place}?"},
        "{org1} employs {staff1} people, {org2} {staff2}.|{org1} was founded by {who1}, {org2} by {who2}.|Sales of {org1} grew by {pct1}, those of {org2} by {pct2}."),
    frame("deal", "who:person other:person what:thing cost:money when:time",
        "{who} sold {what} to {other} for {cost}.|{other} bought {what} from {who} {when}.|{who} lent {what} to {other} {when}.|{other} rents {what} from {who} for {cost} a month.",
        {"other": "Who bought {what}?|To whom did {who} sell {what}?|Who did {who} lend {what} to?|Who rents {what}?", "who": "Who sold {what}?|Who lent {what} to {other}?|From whom did {other} buy {what}?",
         "cost": "How much did {other} pay for {what}?|For how much was {what} sold?|How high is the rent for {what}?", "what": "What did {who} sell to {other}?|What did {other} buy from {who}?", "when": "When did {other} buy {what}?"}),
    frame("duty", "who:role other:role what:thing room:structure when:time span:span term:span0",
        "{who} is responsible for {what}, while {other} looks after {room}.|{who} takes care of {what}.|{who} must return {what} {when}.|{who} shall repair {what} within {term}.|"
        "{who} is in charge of {what}, {other} of {room}.|{who} may keep {what} {span}.",
        {"who": "Who is responsible for {what}?|Who takes care of {what}?|Who must return {what}?|Who is in charge of {what}?", "other": "Who looks after {room}?|Who is responsible for {room}?|Who is in charge of {room}?",
         "what": "What is {who} responsible for?|What does {who} take care of?|What must {who} return?", "room": "What does {other} look after?", "when": "When must {what} be returned?", "span": "How long may {who} keep {what}?"}),
    frame("delivery", "what:newthing org:org when:time due:time why:cause who:person",
        "{what} was ordered from {org} {when}.|{what} will be delivered {due}.|{who} ordered {what} {when}.|{what} arrived {due}.|The delivery of {what} was delayed because of {why}.|{who} returned {what} {due}.",
        {"when": "When was {what} ordered?|When did {who} order {what}?", "due": "When will {what} be delivered?|When did {what} arrive?|When did {who} return {what}?", "org": "From which company was {what} ordered?",
         "why": "Why was the delivery of {what} delayed?|What delayed the delivery of {what}?", "what": "What did {who} order?|What did {who} return?", "who": "Who ordered {what}?"}),
    frame("deadline", "doc:work who:person day:day place:place",
        "Please send the form for {doc} to {who} by {day}.|The deadline for {doc} is {day}.|Applications for {doc} must reach {who} by {day}.|Register for {doc} {place} before {day}.",
        {"who": "Who should receive the form for {doc}?|To whom must applications for {doc} be sent?", "day": "What is the deadline for {doc}?|By when must the form for {doc} be sent?|When is {doc} due?", "place": "Where can you register for {doc}?"}),
]  # fmt: skip
