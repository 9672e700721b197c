//! Records of about 900 bytes: an order with its customer, lines, tags and a note. The same ones in every run.

use std::fmt::Write as _;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As most servers do: no white space, the same members in the same order.
    Plain,
    /// With a line for each value.
    Pretty,
    /// With escapes, other scripts, nulls, members that come and go, are unknown or stand in another order, and white space.
    Odd,
}

const WORDS: [&str; 16] = [
    "amber", "basalt", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kelp",
    "lagoon", "meadow", "north", "orchard", "prairie",
];

/// Numbers without a pattern (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// Below `limit`, with as many digits as a double needs.
    fn real(&mut self, limit: f64) -> f64 {
        self.roll(1 << 53) as f64 / (1_u64 << 53) as f64 * limit
    }

    fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count)
            .map(|_| WORDS[self.roll(WORDS.len() as u64) as usize])
            .collect();
        words.join(" ")
    }
}

/// So many records.
pub fn orders(count: u64, form: Form) -> Vec<Vec<u8>> {
    let mut dice = Dice(7);
    (0..count)
        .map(|number| order(number, form, &mut dice).into_bytes())
        .collect()
}

/// The records as the elements of `data` on one page.
pub fn page(records: &[Vec<u8>]) -> Vec<u8> {
    let mut page = br#"{"data":["#.to_vec();
    page.extend_from_slice(&records.join(&b','));
    page.extend_from_slice(br#"],"next":null}"#);
    page
}

fn order(number: u64, form: Form, dice: &mut Dice) -> String {
    let odd = form == Form::Odd;
    let moment = format!(
        "2026-02-{:02}T{:02}:01:{:02}{}",
        1 + number % 28,
        number % 24,
        number % 60,
        if odd {
            format!(".{:06}+02:00", number % 1_000_000)
        } else {
            "Z".to_owned()
        },
    );
    let status = ["open", "paid", "shipped", "returned"][dice.roll(4) as usize];
    let cents = 1 + dice.roll(1_000_000);
    let address = format!(
        r#"{{"street":"{}","city":"{}","zip":"{:05}"}}"#,
        dice.words(3),
        dice.words(1),
        dice.roll(100_000)
    );
    let customer = format!(
        r#"{{"id":{},"name":"{}","email":"user{number}@example.com","address":{}}}"#,
        dice.roll(1_000_000),
        dice.words(2),
        if odd && number.is_multiple_of(3) {
            "null"
        } else {
            &address
        },
    );
    let lines: Vec<String> = (0..3)
        .map(|_| {
            let (sku, quantity, price) = (dice.roll(10_000), 1 + dice.roll(8), dice.real(50.0));
            format!(r#"{{"sku":"SKU-{sku}","quantity":{quantity},"price":{price}}}"#)
        })
        .collect();
    let tags: Vec<String> = (0..4).map(|_| format!("\"{}\"", dice.words(1))).collect();
    let note = if odd {
        let escaped = r#"caf\u00e9 \"quoted\" line\nbreak \\ 中文 "#.repeat(4);
        format!("{escaped}{}", dice.words(20))
    } else {
        dice.words(55)
    };
    let mut members = vec![
        ("id", number.to_string()),
        ("updated_at", format!("\"{moment}\"")),
        ("version", "1".to_owned()),
        ("status", format!("\"{status}\"")),
        ("total", format!("\"{}.{:02}\"", cents / 100, cents % 100)),
        ("paid", (dice.roll(2) == 0).to_string()),
        ("score", dice.real(100.0).to_string()),
        ("customer", customer),
        ("lines", format!("[{}]", lines.join(","))),
        (
            "tags",
            if odd && number.is_multiple_of(4) {
                "null".to_owned()
            } else {
                format!("[{}]", tags.join(","))
            },
        ),
        ("note", format!("\"{note}\"")),
    ];
    if odd && number.is_multiple_of(5) {
        members.push((
            "extra",
            format!(r#"{{"a":[1,2,{{"b":null}}],"c":"{}"}}"#, dice.words(4)),
        ));
    }
    if odd && !number.is_multiple_of(2) {
        for last in (1..members.len()).rev() {
            members.swap(last, dice.roll(last as u64 + 1) as usize);
        }
    }
    let mut record = String::from("{");
    for (index, (name, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (before, behind) = match form {
            Form::Plain => ("", ""),
            Form::Pretty => ("\n  ", " "),
            Form::Odd if number.is_multiple_of(3) => ("", ""),
            Form::Odd => (" ", " "),
        };
        // Writing to a String cannot fail.
        let _ = write!(record, "{comma}{before}\"{name}\":{behind}{value}");
    }
    record.push('}');
    if form == Form::Pretty {
        indented(&record)
    } else {
        record
    }
}

/// With a line for each member and element.
fn indented(record: &str) -> String {
    serde_json::from_str::<serde_json::Value>(record)
        .map_or_else(|_| record.to_owned(), |value| format!("{value:#}"))
}
