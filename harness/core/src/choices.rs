//! Named random streams.
//!
//! A value that is drawn depends on the seed and on the names that lead to it, and on nothing else: not on how many
//! values are drawn before it, and not on how many candidates stand beside it in a list.

use std::ops::RangeInclusive;

/// The offset basis and the prime of FNV-1a for 64 bits.
const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

/// The odd number that SplitMix64 counts by: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64, in which each bit of the input changes half of the output.
const fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// A named random stream, which has further ones below it. It gives one value; each further value has a stream of its
/// own.
///
/// A stream is a number of 64 bits. The one of a seed is `mixed(seed + GOLDEN)`. The one of a name below it is the
/// FNV-1a hash of the name's bytes, begun with the basis xor the stream above instead of with the basis alone, and
/// `mixed`.
///
/// Among candidates the choice is made by rendezvous hashing: each candidate holds as many tickets as its weight says,
/// ticket `n` of a candidate is `mixed(stream of its name + (n + 1) * GOLDEN)`, and the highest ticket of all wins. A
/// further candidate, or a heavier one, changes only the choices that it wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices(u64);

impl Choices {
    /// The stream of a seed.
    pub const fn of(seed: u64) -> Choices {
        Choices(mixed(seed.wrapping_add(GOLDEN)))
    }

    /// The stream with this name below this one.
    #[must_use]
    pub fn fork(self, name: &str) -> Choices {
        self.bytes(name.as_bytes())
    }

    /// The stream with this number below this one.
    #[must_use]
    pub fn nth(self, number: usize) -> Choices {
        self.bytes(&(number as u64).to_le_bytes())
    }

    fn bytes(self, name: &[u8]) -> Choices {
        let hash = name.iter().fold(BASIS ^ self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        Choices(mixed(hash))
    }

    /// A number of this range, each as likely as any other.
    pub fn within(self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        let width = u128::from(end.saturating_sub(start)) + 1;
        let share = (u128::from(mixed(self.0.wrapping_add(GOLDEN))) * width) >> 64;
        start.wrapping_add(u64::try_from(share).unwrap_or_default())
    }

    /// The same for a small number.
    pub fn count(self, range: RangeInclusive<usize>) -> usize {
        let range = *range.start() as u64..=*range.end() as u64;
        usize::try_from(self.within(range)).unwrap_or(usize::MAX)
    }

    /// Whether something happens that happens `times` times of `of`.
    pub fn happens(self, times: u64, of: u64) -> bool {
        self.within(1..=of) <= times
    }

    /// The highest ticket of a candidate; `None` if it holds none.
    fn ticket(self, weight: u32, name: &impl Named) -> Option<u64> {
        let candidate = name.below(self).0;
        (1..=u64::from(weight)).map(|number| mixed(candidate.wrapping_add(number.wrapping_mul(GOLDEN)))).max()
    }

    /// The candidate that wins; `None` if there is none with a weight. Each has a weight, a name and a value.
    pub fn pick<N: Named, T>(self, candidates: impl IntoIterator<Item = (u32, N, T)>) -> Option<T> {
        let ranked =
            candidates.into_iter().filter_map(|(weight, name, value)| Some((self.ticket(weight, &name)?, value)));
        ranked.max_by_key(|(ticket, _)| *ticket).map(|(_, value)| value)
    }

    /// All candidates, the one that wins first, and then always the one that wins if those before it do not take part.
    pub fn ranked<N: Named, T>(self, candidates: impl IntoIterator<Item = (u32, N, T)>) -> Vec<T> {
        let ranked =
            candidates.into_iter().filter_map(|(weight, name, value)| Some((self.ticket(weight, &name)?, value)));
        let mut ranked: Vec<(u64, T)> = ranked.collect();
        ranked.sort_by_key(|(ticket, _)| std::cmp::Reverse(*ticket));
        ranked.into_iter().map(|(_, value)| value).collect()
    }

    /// One of these, each as likely as any other.
    ///
    /// # Panics
    /// When there is none.
    pub fn one<T: Named + Clone>(self, from: &[T]) -> T {
        self.pick(from.iter().map(|candidate| (1, candidate, candidate))).expect("there is a candidate").clone()
    }

    /// One of these, with their weights.
    ///
    /// # Panics
    /// When there is none with a weight.
    pub fn weighed<T: Named + Clone>(self, from: &[(u32, T)]) -> T {
        let candidates = from.iter().map(|(weight, candidate)| (*weight, candidate, candidate));
        self.pick(candidates).expect("there is a candidate").clone()
    }
}

/// A candidate that is its own name.
pub trait Named {
    /// The stream with this name below a stream.
    fn below(&self, stream: Choices) -> Choices;
}

impl<T: Named + ?Sized> Named for &T {
    fn below(&self, stream: Choices) -> Choices {
        (*self).below(stream)
    }
}

impl Named for str {
    fn below(&self, stream: Choices) -> Choices {
        stream.fork(self)
    }
}

impl Named for String {
    fn below(&self, stream: Choices) -> Choices {
        stream.fork(self)
    }
}

impl Named for [u8] {
    fn below(&self, stream: Choices) -> Choices {
        stream.bytes(self)
    }
}

impl<A: Named, B: Named> Named for (A, B) {
    fn below(&self, stream: Choices) -> Choices {
        self.1.below(self.0.below(stream))
    }
}

/// A number's name is its decimal digits.
macro_rules! named_by_digits {
    ($($type:ty),*) => {
        $(impl Named for $type {
            fn below(&self, stream: Choices) -> Choices {
                stream.fork(&self.to_string())
            }
        })*
    };
}

named_by_digits!(i64, u16, u64, usize);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Choices;

    const NAMES: [&str; 5] = ["pass", "strip_header", "set_version", "cut", "drop_key"];

    /// Reproducers name seeds: these numbers never change.
    #[test]
    fn a_stream_is_a_fixed_function_of_its_names() {
        let stream = Choices::of(1);
        let drawn = [stream, stream.fork("fault"), stream.fork("fault").fork("cut"), stream.nth(0)];
        let drawn = drawn.map(|stream| stream.within(0..=u64::MAX));
        let expected = [0x5e41_ab08_7439_611e, 0xb561_7d27_9715_c633, 0xd50f_0352_a076_1016, 0x0f80_36e6_b001_a087];
        assert_eq!(drawn, expected, "{drawn:#x?}");
        let won: Vec<&str> = (0..5).map(|seed| Choices::of(seed).one(&NAMES)).collect();
        assert_eq!(won, ["set_version", "cut", "cut", "pass", "set_version"]);
    }

    #[test]
    fn streams_differ_by_their_names() {
        let stream = Choices::of(7);
        assert_ne!(stream.fork("a").fork("b"), stream.fork("ab"));
        assert_ne!(stream.fork("a"), Choices::of(8).fork("a"));
        assert_ne!(stream.nth(1), stream.nth(2));
    }

    /// A further candidate, at any place, changes only the choices that it wins.
    #[test]
    fn a_further_candidate_changes_only_what_it_wins() {
        let mut won = 0;
        for seed in 0..3000 {
            let stream = Choices::of(seed);
            let before = stream.one(&NAMES);
            for at in 0..=NAMES.len() {
                let mut more = NAMES.to_vec();
                more.insert(at, "retry_request");
                let after = stream.one(&more);
                assert!(after == before || after == "retry_request", "seed {seed}: {before}, then {after}");
                won += usize::from(after != before);
            }
        }
        assert!((2400..3600).contains(&won), "{won} of 18000");
    }

    /// A heavier candidate wins more, and what it does not win stays as it is.
    #[test]
    fn a_weight_is_a_share() {
        let candidates = |weight| [(1, "a"), (weight, "b"), (2, "c")];
        let mut wins: BTreeMap<&str, usize> = BTreeMap::new();
        for seed in 0..8000 {
            let (light, heavy) = (Choices::of(seed).weighed(&candidates(1)), Choices::of(seed).weighed(&candidates(5)));
            assert!(heavy == light || heavy == "b", "seed {seed}");
            *wins.entry(heavy).or_default() += 1;
        }
        let share = |name| wins[name] as f64 / 1000.0;
        assert!((share("a") - 1.0).abs() < 0.1 && (share("b") - 5.0).abs() < 0.2, "{wins:?}");
        assert_eq!(Choices::of(1).pick([(0, "a", ())]), None);
    }

    /// The second in rank wins where the first takes no part.
    #[test]
    fn a_rank_is_what_remains() {
        for seed in 0..500 {
            let ranked = Choices::of(seed).ranked(NAMES.map(|name| (1, name, name)));
            let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != ranked[0]).collect();
            assert_eq!((ranked[0], ranked[1]), (Choices::of(seed).one(&NAMES), Choices::of(seed).one(&others)));
        }
    }

    #[test]
    fn numbers_fill_their_range() {
        let mut seen = [0; 4];
        for seed in 0..4000 {
            seen[Choices::of(seed).count(3..=6) - 3] += 1;
        }
        assert!(seen.iter().all(|count| (900..1100).contains(count)), "{seen:?}");
        assert_eq!(Choices::of(1).within(5..=5), 5);
        let happened = (0..4000).filter(|seed| Choices::of(*seed).happens(1, 4)).count();
        assert!((900..1100).contains(&happened), "{happened}");
        assert!(!Choices::of(1).happens(0, 4) && Choices::of(1).happens(4, 4));
    }
}
