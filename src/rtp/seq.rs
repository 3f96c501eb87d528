//! Arithmetic on 16-bit sequence numbers, which wrap (RFC 1982).

/// Whether `a` comes after `b`. Numbers exactly half a cycle apart are newer in neither direction.
#[inline]
#[must_use]
pub fn is_newer(a: u16, b: u16) -> bool {
    distance(b, a) > 0
}

/// Steps forward from `from` to `to`; negative where `to` is the older one.
#[inline]
#[must_use]
pub fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

/// Turns wrapping numbers into ones that never wrap: each is taken to be the one nearest to the newest so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    newest: Option<u64>,
}

impl Unwrapper {
    /// Added to the first number. A packet is at most half a cycle (32 768) late, and the reference only moves
    /// forward, so nothing ever falls below 32 768.
    const START: u64 = 1 << 16;

    /// The number without wrapping; its low 16 bits are `sequence`.
    #[inline]
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        let Some(newest) = self.newest else {
            let first = Self::START + u64::from(sequence);
            self.newest = Some(first);
            return first;
        };
        let unwrapped = newest.wrapping_add_signed(i64::from(distance(newest as u16, sequence)));
        self.newest = Some(newest.max(unwrapped));
        unwrapped
    }

    /// The newest so far.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_distance_agree_over_a_whole_cycle() {
        for base in [0u16, 1, 0x7FFF, 0x8000, 0xFFFF] {
            for step in 0..=u16::MAX {
                let other = base.wrapping_add(step);
                assert_eq!(is_newer(other, base), (1..0x8000).contains(&step), "{base} {step}");
                assert_eq!(is_newer(base, other), step > 0x8000, "{base} {step}");
                assert_eq!(base.wrapping_add_signed(distance(base, other)), other);
            }
        }
    }

    #[test]
    fn unwrapping_counts_on_over_several_cycles() {
        for start in [0u16, 1, 0x8000, 0xFFFF] {
            let mut unwrapper = Unwrapper::default();
            let first = unwrapper.unwrap(start);
            for n in 1..200_000u64 {
                assert_eq!(unwrapper.unwrap(start.wrapping_add(n as u16)), first + n);
            }
        }
    }

    #[test]
    fn late_numbers_stay_late_and_never_underflow() {
        for start in 0..=u16::MAX {
            let mut unwrapper = Unwrapper::default();
            let first = unwrapper.unwrap(start);
            for late in [1u16, 2, 0x7FFF, 0x8000] {
                let number = unwrapper.unwrap(start.wrapping_sub(late));
                assert_eq!(number, first - u64::from(late));
                assert_eq!(unwrapper.newest(), Some(first), "a late number is no reference");
            }
        }
    }
}
