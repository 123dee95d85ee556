"""Words that are never replaced and never used as synonyms."""

from __future__ import annotations

_FUNCTION_WORDS = """
a about above across after again against ago ahead all almost alone along already also although always am amid among
an and another any anybody anyone anything anyway apart are around as aside at away back be became because become been
before behind being below beneath beside besides between beyond both but by can cannot could despite did do does doing
done down during each either else enough even ever every everybody everyone everything except few fewer for forth from
further had half has have having he hence her here hers herself him himself his how however i if in indeed inside
instead into is it its itself just least less lest like likely many may maybe me might mine more most much must my
myself near nearly neither never nevertheless next no nobody none nor not nothing now nowhere of off often on once only
onto or other others otherwise ought our ours ourselves out outside over own per perhaps plus quite rather really
round same several shall she should since so some somebody someone something sometimes somewhat somewhere soon still
such than that the their theirs them themselves then there therefore these they this those though through throughout
thus till to together too toward towards under underneath unless unlike until up upon us very via was we well were what
whatever when whenever where whereas wherever whether which whichever while who whoever whole whom whose why will with
within without worth would yes yet you your yours yourself yourselves
"""

# These verbs and nouns have so many uses that no synonym fits all of them.
_LIGHT_WORDS = """
say says said saying make makes made making take takes took taken taking get gets got gotten getting give gives gave
given giving go goes went gone going come comes came coming put puts putting set sets setting let lets letting keep
keeps kept keeping hold holds held holding run runs ran running turn turns turned turning bring brings brought bringing
have having be being do doing see sees saw seen seeing use uses used using know knows knew known knowing look looks
looked looking want wants wanted need needs needed try tries tried trying call calls called calling tell tells told
thing things way ways lot lots kind kinds sort sorts part parts place places man men woman women people person persons
"""

_NUMBERS_AND_TIMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million
millions billion billions trillion dozen dozens first second third fourth fifth sixth seventh eighth ninth tenth last
next new old today tomorrow yesterday tonight day days week weeks month months year years hour hours minute minutes
morning evening night afternoon noon midnight quarter quarters half percent cent cents pct dollar dollars euro euros
pound pounds point points mile miles foot feet inch inches
"""

STOP_WORDS: frozenset[str] = frozenset(" ".join((_FUNCTION_WORDS, _LIGHT_WORDS, _NUMBERS_AND_TIMES)).split())

# For these words, the most frequent sense in WordNet's texts, most of them from 1961, is not that of today's news, or
# the synonyms fit only some uses. They were found by reading changed news.
_MISLEADING_SOURCES = """
admit agree alarm animal announcement arena ask attack authority beckon benefit block boss building bunch camp career
cattle center central chance cite clash cleric coalition comeback command complaint concern conclude confidence damage
defeat deficit departure diary dig digging dismiss document drama effect employ enact encourage engineering enjoy
enterprise entire eyeglass eyeglasses fearful fellow fierce final finally finish flying focus force forecaster
foreigner fort fulfil furor group gunfire hospital immediate increase injury instant integrity interrupt ironic job
journal jump later letter link live manager marketing middle militia minister motivator news occupation partner
penalty permanent pitcher plant poor prescribe prevent print priority product project prominent promotion prototype
province publish race range rate realm rebound recall recover regime relentless remarkable resign result risk sanction
save schedule scrutiny secure seize seriously shortage slight slow small spark sport starting storm story style
supporter suspicion technology telephone terminal territory terror tragedy trigger tumble tune upright view violation
war wide works
"""

# These synonyms are right in the dictionary but odd in today's prose.
_MISLEADING_SYNONYMS = """
accomplish actuate aggregate ailment alien barricade beast beau beginning bidding bivouac bound cardinal churchman
clang clangor clangoring clump coerce collar consequence consternation contiguous delirium deliverance delve
diminution diminutive edifice endowment engagement epitome epoch fillip foreman forestall gauge ginmill grinning
hapless hotshot hunch imbed impairment imprimatur incertain indorse infirmary instal ism jeopardy junk lad laurels
licking melody menace metropolis misdemeanor monocle motorcar muse onrush ordain petite piteous populate pore potency
precede precedence proclamation protagonist rapture rebuff retort ricochet rivet salient seacoast singular slug
soothsayer stylemark superintend terrible tidings transcend twinkling uncover undertaking vacate vocation warfare wing
wink wizard wrack
"""

MISLEADING_WORDS: frozenset[str] = frozenset(f"{_MISLEADING_SOURCES} {_MISLEADING_SYNONYMS}".split())
