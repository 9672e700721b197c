//! The difference of two texts, as `diff -u` writes it.

use std::fmt::Write as _;

/// Lines shown around a difference.
const AROUND: usize = 3;

/// Most lines that may be different before the texts are shown whole.
const DIFFERENT_MAX: usize = 1_000;

/// What became of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Gone,
    Come,
}

/// The difference of two texts, as `diff -u` writes it; empty if there is none.
pub fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    if old == new {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (lines(old), lines(new));
    let script = script(&old, &new);
    let mut text = format!("--- {old_name}\n+++ {new_name}\n");
    let (mut at_old, mut at_new) = (0, 0);
    let mut places = Vec::with_capacity(script.len());
    for &fate in &script {
        places.push((at_old, at_new));
        at_old += usize::from(fate != Fate::Come);
        at_new += usize::from(fate != Fate::Gone);
    }
    let mut from = 0;
    while let Some(first) = (from..script.len()).find(|&at| script[at] != Fate::Kept) {
        let begin = first.saturating_sub(AROUND).max(from);
        let mut end = first;
        // Differences closer to each other than what is shown around them are one.
        while let Some(next) =
            (end..script.len().min(end + 2 * AROUND + 1)).find(|&at| script[at] != Fate::Kept)
        {
            end = next + 1;
        }
        let end = script.len().min(end + AROUND);
        let shown = &script[begin..end];
        let count = |other: Fate| shown.iter().filter(|&&fate| fate != other).count();
        let (old_at, new_at) = places[begin];
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "@@ -{} +{} @@",
            span(old_at, count(Fate::Come)),
            span(new_at, count(Fate::Gone))
        );
        for (&fate, &(old_at, new_at)) in shown.iter().zip(&places[begin..end]) {
            let (sign, line) = match fate {
                Fate::Kept => (' ', old[old_at]),
                Fate::Gone => ('-', old[old_at]),
                Fate::Come => ('+', new[new_at]),
            };
            let _ = write!(text, "{sign}{line}");
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
        from = end;
    }
    text
}

/// With their ends.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn span(at: usize, count: usize) -> String {
    // An empty range is named by the line before it.
    let first = if count == 0 { at } else { at + 1 };
    if count == 1 {
        first.to_string()
    } else {
        format!("{first},{count}")
    }
}

/// The shortest way from one text to the other: Myers, "An O(ND) Difference Algorithm and Its Variations", 1986.
fn script(old: &[&str], new: &[&str]) -> Vec<Fate> {
    let Some(trace) = trace(old, new) else {
        let gone = old.iter().map(|_| Fate::Gone);
        return gone.chain(new.iter().map(|_| Fate::Come)).collect();
    };
    let mut script = Vec::with_capacity(old.len() + new.len());
    let (mut x, mut y) = (old.len(), new.len());
    for (step, furthest) in trace.iter().enumerate().rev() {
        if step == 0 {
            break;
        }
        // `furthest[diagonal + step]` before this step, with diagonals of `x - y`.
        let diagonal = x as isize - y as isize;
        let reach = |diagonal: isize| {
            let at = diagonal + step as isize - 1;
            usize::try_from(at)
                .ok()
                .and_then(|at| furthest.get(at))
                .copied()
                .flatten()
        };
        let (down, right) = (reach(diagonal + 1), reach(diagonal - 1).map(|x| x + 1));
        let is_down = right.is_none_or(|right| down.is_some_and(|down| down >= right));
        let start = if is_down { down } else { right }.unwrap_or(0);
        while x > start {
            script.push(Fate::Kept);
            (x, y) = (x - 1, y - 1);
        }
        if is_down {
            script.push(Fate::Come);
            y -= 1;
        } else {
            script.push(Fate::Gone);
            x -= 1;
        }
    }
    script.extend(std::iter::repeat_n(Fate::Kept, x));
    script.reverse();
    script
}

/// For each number of differences, how far into the old text each diagonal came before; `None` if there are too many.
fn trace(old: &[&str], new: &[&str]) -> Option<Vec<Vec<Option<usize>>>> {
    let mut trace: Vec<Vec<Option<usize>>> = vec![Vec::new()];
    let mut before: Vec<Option<usize>> = Vec::new();
    for step in 0..=DIFFERENT_MAX.min(old.len() + new.len()) {
        let mut furthest = vec![None; 2 * step + 1];
        for (at, reached) in furthest.iter_mut().enumerate().step_by(2) {
            let diagonal = at as isize - step as isize;
            let reach = |shift: isize| {
                let index = diagonal + shift + step as isize - 1;
                usize::try_from(index)
                    .ok()
                    .and_then(|index| before.get(index))
                    .copied()
                    .flatten()
            };
            let start = match step {
                0 => Some(0),
                _ => reach(1).max(reach(-1).map(|x| x + 1)),
            };
            // Off the edge of one of the texts there is nothing to compare.
            let inside = |x: usize| {
                let y = usize::try_from(x as isize - diagonal).ok()?;
                (x <= old.len() && y <= new.len()).then_some((x, y))
            };
            let Some((mut x, mut y)) = start.and_then(inside) else {
                continue;
            };
            while x < old.len() && y < new.len() && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
            }
            if x == old.len() && y == new.len() {
                return Some(trace);
            }
            *reached = Some(x);
        }
        trace.push(furthest.clone());
        before = furthest;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn differences_are_shown_with_the_lines_around_them() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no";
        let new = "a\nB\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no\np\n";
        insta::assert_snapshot!(unified(old, new, "a/x", "b/x"), @r#"
        --- a/x
        +++ b/x
        @@ -1,5 +1,5 @@
         a
        -b
        +B
         c
         d
         e
        @@ -12,4 +12,5 @@
         l
         m
         n
        -o
        \ No newline at end of file
        +o
        +p
        "#);
        assert_eq!(unified(old, old, "a", "b"), "");
    }

    /// What `patch` does, without looking for moved lines.
    fn apply(old: &str, difference: &str) -> String {
        let old: Vec<&str> = lines(old);
        let (mut new, mut at) = (String::new(), 0);
        let mut rows = difference.split_inclusive('\n').skip(2).peekable();
        while let Some(row) = rows.next() {
            let bare = rows.peek().is_some_and(|next| next.starts_with('\\'));
            let line = if bare { &row[1..row.len() - 1] } else { &row[1..] };
            match &row[..1] {
                "@" => {
                    let start = row[4..]
                        .split([',', ' '])
                        .next()
                        .unwrap()
                        .parse::<usize>()
                        .unwrap();
                    let is_empty = row[4..].split(' ').next().unwrap().ends_with(",0");
                    let start = if is_empty { start } else { start - 1 };
                    new.extend(old[at..start].iter().copied());
                    at = start;
                }
                " " => {
                    assert_eq!(old[at], line);
                    new.push_str(line);
                    at += 1;
                }
                "-" => {
                    assert_eq!(old[at], line);
                    at += 1;
                }
                "+" => new.push_str(line),
                _ => {}
            }
        }
        new.extend(old[at..].iter().copied());
        new
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_difference_applied_gives_the_new_text(old in "([ab]\n?){0,30}", new in "([ab]\n?){0,30}") {
            prop_assert_eq!(apply(&old, &unified(&old, &new, "a", "b")), new);
        }
    }
}
