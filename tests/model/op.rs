//! What can happen in a house of two rooms and eight people, and the seeded choice of it.

use std::fmt;

/// Rooms and seats. Whoever sits on a seat is in one of the rooms.
pub const ROOMS: usize = 2;
pub const SEATS: usize = 8;

/// One thing that happens. A seat on which nobody sits makes it nothing, but for [`Op::Join`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub seat: usize,
    pub act: Act,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sits down, if the seat is free.
    Join {
        room: usize,
    },
    Publish {
        section: usize,
        muted: bool,
    },
    Unpublish {
        section: usize,
    },
    Mute {
        section: usize,
        muted: bool,
    },
    /// Takes or mutes what belongs to somebody else.
    Meddle,
    Want {
        height: u16,
    },
    Name,
    /// Asks for a page of the roster.
    Who,
    /// A kind that nobody knows, which must be understood.
    Nonsense,
    /// A bare acknowledgement.
    Ack,
    /// The carrier ends, and the server is told.
    Lose,
    /// The carrier is dead without anybody having noticed: nothing passes in either direction.
    Break,
    /// A new carrier, whatever became of the old one.
    Resume {
        token: Token,
    },
    /// A new carrier that dies before anything came back on it.
    ResumeInVain,
    /// Says something on a carrier that was replaced.
    Late,
    /// An ICE restart.
    Restart,
    /// Nothing arrives by UDP any more, or does again.
    Dark,
    Light,
    /// The worker gives the transport up; when it has, another is offered.
    Fail,
    /// A second transport while the first lives.
    Second,
    /// The same as a new page.
    Reload {
        token: Token,
        clean: bool,
    },
    Bye,
    /// Closes the page.
    Close,
    /// Gone without a word, for ever.
    Kill,
    /// The worker reports something about an epoch that is over.
    OldNews,
    /// Somebody is heard by the room.
    Speak,
    /// Time passes.
    Pause {
        ms: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Right,
    /// The right one of an earlier time.
    Old,
    Wrong,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.seat, self.act)
    }
}

/// Numbers that follow from a seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    fn token(&mut self) -> Token {
        match self.below(10) {
            0 => Token::Wrong,
            1 => Token::Old,
            _ => Token::Right,
        }
    }

    /// Short, about as long as a limit, or longer than all of them.
    fn pause(&mut self) -> u64 {
        match self.below(8) {
            0 => 31_000 + self.next() % 5_000,
            1 => 8_000 + self.next() % 6_000,
            2 => 3_000 + self.next() % 4_000,
            _ => self.next() % 1_500,
        }
    }

    fn act(&mut self) -> Act {
        // A new act belongs here and into `World::act`; its weight is the number of its entries.
        match self.below(46) {
            0..8 => Act::Join { room: usize::from(self.chance(25)) },
            8..13 => Act::Publish { section: self.below(4), muted: self.chance(30) },
            13..15 => Act::Unpublish { section: self.below(4) },
            15..18 => Act::Mute { section: self.below(4), muted: self.chance(50) },
            18 => Act::Meddle,
            19..21 => Act::Want { height: [0, 180, 720][self.below(3)] },
            21 => Act::Name,
            22 => Act::Who,
            23 => Act::Nonsense,
            24 => Act::Ack,
            25 => Act::Lose,
            26..28 => Act::Break,
            28..32 => Act::Resume { token: self.token() },
            32 => Act::ResumeInVain,
            33 => Act::Late,
            34 => Act::Restart,
            35 => Act::Dark,
            36 => Act::Light,
            37 => [Act::Fail, Act::Second][self.below(2)],
            38..40 => Act::Reload { token: self.token(), clean: self.chance(30) },
            40 => [Act::Bye, Act::Close][self.below(2)],
            41 => Act::Kill,
            42 => Act::OldNews,
            43 => Act::Speak,
            _ => Act::Pause { ms: self.pause() },
        }
    }
}

/// What the media path of four people meets; second transports have tests of their own.
fn media_act(dice: &mut Dice) -> Act {
    match dice.below(34) {
        0..8 => Act::Join { room: usize::from(dice.chance(25)) },
        8..10 => Act::Publish { section: dice.below(2), muted: dice.chance(20) },
        10..12 => Act::Unpublish { section: dice.below(2) },
        12..14 => Act::Mute { section: dice.below(2), muted: dice.chance(50) },
        14..16 => Act::Want { height: [0, 180, 720][dice.below(3)] },
        16 => [Act::Break, Act::Lose][dice.below(2)],
        17..20 => Act::Resume { token: dice.token() },
        20 => Act::Restart,
        21 => Act::Dark,
        22..24 => Act::Light,
        24..26 => Act::Reload { token: dice.token(), clean: dice.chance(30) },
        26 => [Act::Bye, Act::Close, Act::Kill][dice.below(3)],
        27 => Act::Pause { ms: if dice.chance(40) { 9_000 } else { 200 + dice.next() % 1000 } },
        _ => Act::Pause { ms: 1_000 + dice.next() % 1_500 },
    }
}

/// The sequence of a seed for the tier with media.
pub fn media_sequence(seed: u64) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let (len, seats) = (8 + dice.below(20), 2 + dice.below(3));
    (0..len).map(|_| Op { seat: dice.below(seats), act: media_act(&mut dice) }).collect()
}

/// The sequence of a seed.
pub fn sequence(seed: u64) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let (len, seats) = (5 + dice.below(40), 2 + dice.below(SEATS - 1));
    (0..len).map(|_| Op { seat: dice.below(seats), act: dice.act() }).collect()
}
