//! Latencies in buckets of at most 1/32 relative width.

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Buckets of one row of a picture.
const ROW: usize = SUB / 2;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

/// Counts of latencies, in ns.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }

    pub(crate) fn add(&mut self, ns: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(ns)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn mean_ns(&self) -> u64 {
        let mean = self.sum_ns / u128::from(self.count.max(1));
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    pub(crate) fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The counts in rows of half an octave, from the first that is not empty to the last: upper end in ns, count.
    pub(crate) fn rows(&self) -> Vec<(u64, u64)> {
        let rows = self.buckets.chunks(ROW).enumerate();
        let row = |(number, buckets): (usize, &[u64])| {
            (upper(number * ROW + ROW - 1), buckets.iter().sum::<u64>())
        };
        let mut all: Vec<_> = rows.map(row).skip_while(|row| row.1 == 0).collect();
        while all.last().is_some_and(|row| row.1 == 0) {
            all.pop();
        }
        all
    }

    /// The latency that `permyriad` of 10,000 do not exceed (the upper end of its bucket).
    pub(crate) fn quantile_ns(&self, permyriad: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(permyriad)).div_ceil(10_000);
        let mut seen = 0;
        for (number, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted && *count > 0 {
                return upper(number).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

fn index(ns: u64) -> usize {
    let magnitude = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let within = usize::try_from(ns >> magnitude).unwrap_or(0);
    magnitude as usize * SUB + within
}

fn upper(index: usize) -> u64 {
    if index < 2 * SUB {
        return index as u64;
    }
    let magnitude = index / SUB - 1;
    let within = (index % SUB + SUB) as u128;
    u64::try_from(((within + 1) << magnitude) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_value_within_a_thirtysecond() {
        for ns in (0..200).chain([1000, 12_345, 1 << 20, 987_654_321, u64::MAX / 3]) {
            let bound = upper(index(ns));
            assert!(bound >= ns, "{ns}: {bound}");
            assert!(bound - ns <= ns / 32 + 1, "{ns}: {bound}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new();
        for ns in 1..=1000 {
            histogram.add(ns * 1000);
        }
        let near = |got: u64, wanted: u64| got >= wanted && got <= wanted + wanted / 30;
        assert!(near(histogram.quantile_ns(5000), 500_000));
        assert!(near(histogram.quantile_ns(9900), 990_000));
        assert_eq!(histogram.quantile_ns(10_000), 1_000_000);
        assert_eq!(histogram.mean_ns(), 500_500);
        let rows = histogram.rows();
        assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), 1000);
        assert!(rows.first().unwrap().1 > 0 && rows.last().unwrap().1 > 0);
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(rows.last().unwrap().0 >= 1_000_000);
        assert!(Histogram::new().rows().is_empty());
    }
}
