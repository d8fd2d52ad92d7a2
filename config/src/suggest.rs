//! Which declared name was meant.

/// Names longer than this are not compared: nobody mistyped those.
const NAME_BYTES_MAX: usize = 100;
/// The most suggestions for one name.
const SUGGESTIONS_MAX: usize = 3;
/// From 0 (nothing alike) to 1 (the same).
const LIKENESS_MIN: f64 = 0.6;

/// The declared names nearest to `name`, nearest first.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    if name.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    // The prefix is the same in all of them and would make everything look alike.
    let stem = |name: &str| {
        let upper = name.to_uppercase();
        upper
            .strip_prefix(crate::reader::PREFIX)
            .unwrap_or(&upper)
            .to_owned()
    };
    let wanted = stem(name);
    let mut rated: Vec<(f64, String)> = known
        .map(|known| {
            (
                strsim::normalized_damerau_levenshtein(&wanted, &stem(&known)),
                known,
            )
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    rated.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then_with(|| a_name.cmp(b_name)));
    let best = rated.first().map_or(0.0, |(likeness, _)| *likeness);
    // A clear winner stands alone.
    rated.retain(|(likeness, _)| *likeness >= best - 0.15);
    rated.truncate(SUGGESTIONS_MAX);
    rated.into_iter().map(|(_, name)| name).collect()
}
