//! The records of the sample shop: the same on every machine, for a first and a second day.

use chrono::{DateTime, Duration, SecondsFormat};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    ops::demo::shop::{
        CUSTOMERS_DAY_ONE, CUSTOMERS_NEW, CUSTOMERS_UPDATED, ORDERS_DAY_ONE, ORDERS_DELETED, ORDERS_NEW,
        ORDERS_UPDATED,
    },
};

/// When the shop took its first order, in seconds since 1970: 2026-09-01T08:00:00Z.
const OPENED: i64 = 1_788_249_600;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// Between two orders.
const ORDER_EVERY: i64 = 45 * MINUTE;
/// When the first change of the second day happens. Later than every moment of the first.
const SECOND_DAY: i64 = OPENED + 39 * 24 * HOUR;

const FIRST_ORDER_ID: i64 = 10_001;
const STATUSES: [&str; 4] = ["pending", "paid", "shipped", "delivered"];
const TIERS: [&str; 3] = ["standard", "silver", "gold"];
const COUNTRIES: [&str; 5] = ["DE", "FR", "NL", "PT", "SE"];
const CITIES: [&str; 5] = ["Lübeck", "Nantes", "Utrecht", "Braga", "Malmö"];
const GIVEN: [&str; 8] = [
    "Ada", "Bruno", "Chloé", "Dilek", "Emil", "Femke", "Goran", "Hanna",
];
const FAMILY: [&str; 8] = [
    "Almeida", "Berg", "Caron", "Demir", "Engel", "Fontaine", "Groot", "Holm",
];
const GOODS: [(&str, &str, u64); 8] = [
    ("TEA-001", "Green tea, 100 g", 890),
    ("TEA-002", "Black tea, 100 g", 790),
    ("TEA-003", "Mint, 50 g", 450),
    ("POT-001", "Teapot, 0.8 l", 4_990),
    ("POT-002", "Cast iron pot", 12_990),
    ("CUP-001", "Cup, white", 1_250),
    ("CUP-002", "Cup, blue", 1_450),
    ("TIN-001", "Tin, 250 g", 1_090),
];

/// One order or its tombstone, as the API lists it.
pub(super) struct Row {
    /// What the list is sorted and filtered by.
    pub(super) updated_at: Timestamp,
    /// The record's JSON text.
    pub(super) body: String,
}

/// What the shop knows on one day.
pub(super) struct Day {
    /// Sorted by `updated_at`; the order among equals never changes.
    pub(super) orders: Vec<Row>,
    /// JSON texts by id.
    pub(super) customers: Vec<String>,
}

#[derive(Clone, Serialize)]
struct Order {
    id: i64,
    number: String,
    status: &'static str,
    currency: &'static str,
    total: String,
    customer: Buyer,
    shipping: Shipping,
    lines: Vec<Line>,
    note: Option<&'static str>,
    created_at: String,
    updated_at: String,
    #[serde(skip)]
    updated: i64,
}

#[derive(Clone, Serialize)]
struct Buyer {
    /// Unsigned, so that one bad order can name 2^63.
    id: u64,
    email: String,
    country: &'static str,
}

#[derive(Clone, Serialize)]
struct Shipping {
    method: &'static str,
    cost: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'static str>,
}

#[derive(Clone, Serialize)]
struct Line {
    sku: &'static str,
    name: &'static str,
    quantity: Quantity,
    unit_price: String,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(&'static str),
}

#[derive(Clone, Serialize)]
struct Customer {
    id: u64,
    name: String,
    email: String,
    tier: &'static str,
    newsletter: bool,
    address: Address,
    created_at: String,
    updated_at: String,
}

#[derive(Clone, Serialize)]
struct Address {
    city: &'static str,
    country: &'static str,
}

/// SplitMix64: a few lines, the same numbers everywhere.
struct Dice(u64);

impl Dice {
    /// A whole number below `sides`, which is at least 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.roll(N as u64) as usize]
    }
}

/// The first day and the second.
pub(super) fn days() -> Result<[Day; 2]> {
    let mut dice = Dice(7);
    let customers: Vec<Customer> = (1..=CUSTOMERS_DAY_ONE as u64)
        .map(|id| customer(id, &mut dice))
        .collect();
    let orders: Vec<Order> = orders_of_the_first_day(&customers, &mut dice);
    let first = Day {
        orders: sorted(orders.iter().map(row).collect::<Result<_>>()?),
        customers: customers.iter().map(text).collect::<Result<_>>()?,
    };
    let second = Day {
        orders: sorted(orders_of_the_second_day(orders, &customers, &mut dice)?),
        customers: customers_of_the_second_day(customers, &mut dice)
            .iter()
            .map(text)
            .collect::<Result<_>>()?,
    };
    Ok([first, second])
}

fn orders_of_the_first_day(customers: &[Customer], dice: &mut Dice) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::with_capacity(ORDERS_DAY_ONE);
    for index in 0..ORDERS_DAY_ONE as i64 {
        let created = OPENED + index * ORDER_EVERY;
        let mut order = order(FIRST_ORDER_ID + index, created, customers, dice);
        // Some orders share their moment with the one before, as those of one bulk update do.
        if index % 50 == 49 {
            order.stamp(orders[index as usize - 1].updated);
        }
        orders.push(order);
    }
    orders
}

fn orders_of_the_second_day(
    mut orders: Vec<Order>,
    customers: &[Customer],
    dice: &mut Dice,
) -> Result<Vec<Row>> {
    let mut rows = Vec::with_capacity(orders.len() + ORDERS_NEW);
    let mut now = SECOND_DAY;

    let update_every = ORDERS_DAY_ONE / ORDERS_UPDATED;
    for (count, order) in orders.iter_mut().skip(3).step_by(update_every).enumerate() {
        now += MINUTE;
        order.status = match order.status {
            // An order that was cancelled is still an order.
            _ if count % 10 == 0 => "cancelled",
            "pending" => "paid",
            "paid" => "shipped",
            _ => "delivered",
        };
        order.stamp(now);
    }

    now += MINUTE;
    let too_fine = &mut orders[77];
    "12.999".clone_into(&mut too_fine.total);
    too_fine.stamp(now);

    let delete_every = ORDERS_DAY_ONE / ORDERS_DELETED;
    for (index, order) in orders.into_iter().enumerate() {
        if index % delete_every != delete_every / 2 {
            rows.push(row(&order)?);
            continue;
        }
        now += MINUTE;
        let tombstone = json!({"id": order.id, "updated_at": written(now), "deleted": true});
        rows.push(Row {
            updated_at: moment(now),
            body: tombstone.to_string(),
        });
    }

    let first_id = FIRST_ORDER_ID + ORDERS_DAY_ONE as i64;
    for index in 0..ORDERS_NEW as i64 {
        now += MINUTE;
        let mut order = new_order(first_id + index, now, customers, dice);
        if index < 5 {
            order.lines[0].quantity = Quantity::Text("2");
        }
        rows.push(row(&order)?);
    }
    rows.extend(bad_orders(first_id + ORDERS_NEW as i64, now, customers, dice)?);
    Ok(rows)
}

/// Four new orders that no table should take: a quantity in words, no id, a null id, a customer id of 2^63.
fn bad_orders(first_id: i64, now: i64, customers: &[Customer], dice: &mut Dice) -> Result<Vec<Row>> {
    let mut bad: Vec<Order> = (0..4)
        .map(|index| new_order(first_id + index, now + (index + 1) * MINUTE, customers, dice))
        .collect();
    bad[0].lines[0].quantity = Quantity::Text("two");
    bad[3].customer.id = 1 << 63;
    let mut rows: Vec<Row> = bad.iter().map(row).collect::<Result<_>>()?;

    let mut without_id = parsed(&rows[1].body)?;
    if let Some(members) = without_id.as_object_mut() {
        members.remove("id");
    }
    rows[1].body = without_id.to_string();
    let mut null_id = parsed(&rows[2].body)?;
    null_id["id"] = Value::Null;
    rows[2].body = null_id.to_string();
    Ok(rows)
}

fn order(id: i64, created: i64, customers: &[Customer], dice: &mut Dice) -> Order {
    let buyer = &customers[dice.roll(customers.len() as u64) as usize];
    let mut cents = 0;
    let lines = (0..=dice.roll(3))
        .map(|_| {
            let (sku, name, price) = dice.pick(GOODS);
            let quantity = 1 + dice.roll(4);
            cents += price * quantity;
            Line {
                sku,
                name,
                quantity: Quantity::Number(quantity),
                unit_price: money(price),
            }
        })
        .collect();
    let (method, cost) = dice.pick([("standard", 490), ("express", 990), ("pickup", 0)]);
    let updated = created + dice.roll(6 * HOUR as u64) as i64;
    Order {
        id,
        number: format!("SO-{id}"),
        status: dice.pick(STATUSES),
        currency: "EUR",
        total: money(cents + cost),
        customer: Buyer {
            id: buyer.id,
            email: buyer.email.clone(),
            country: buyer.address.country,
        },
        shipping: Shipping {
            method,
            cost: money(cost),
            carrier: None,
        },
        lines,
        note: (dice.roll(8) == 0).then_some("Please ring twice"),
        created_at: written(created),
        updated_at: written(updated),
        updated,
    }
}

/// An order of the second day, since which the shop names the carrier.
fn new_order(id: i64, now: i64, customers: &[Customer], dice: &mut Dice) -> Order {
    let mut order = order(id, now, customers, dice);
    order.shipping.carrier = Some(dice.pick(["Parcel One", "Green Bike"]));
    order.stamp(now);
    order
}

fn customer(id: u64, dice: &mut Dice) -> Customer {
    let (given, family) = (dice.pick(GIVEN), dice.pick(FAMILY));
    let place = dice.roll(CITIES.len() as u64) as usize;
    let created = OPENED - dice.roll(400 * 24) as i64 * HOUR;
    Customer {
        id,
        name: format!("{given} {family}"),
        email: format!("customer{id}@shop.example"),
        tier: dice.pick(TIERS),
        newsletter: dice.roll(2) == 0,
        address: Address {
            city: CITIES[place],
            country: COUNTRIES[place],
        },
        created_at: written(created),
        updated_at: written(created),
    }
}

fn customers_of_the_second_day(mut customers: Vec<Customer>, dice: &mut Dice) -> Vec<Customer> {
    let update_every = CUSTOMERS_DAY_ONE / CUSTOMERS_UPDATED;
    for customer in customers.iter_mut().skip(1).step_by(update_every) {
        customer.newsletter = !customer.newsletter;
        customer.updated_at = written(SECOND_DAY);
    }
    for id in (CUSTOMERS_DAY_ONE as u64 + 1..).take(CUSTOMERS_NEW) {
        let mut new = customer(id, dice);
        new.created_at = written(SECOND_DAY);
        new.updated_at = written(SECOND_DAY);
        customers.push(new);
    }
    let mut promoted = customer(CUSTOMERS_DAY_ONE as u64 + CUSTOMERS_NEW as u64 + 1, dice);
    promoted.tier = "platinum";
    promoted.updated_at = written(SECOND_DAY);
    customers.push(promoted);
    customers
}

impl Order {
    fn stamp(&mut self, updated: i64) {
        self.updated = updated;
        self.updated_at = written(updated);
    }
}

fn row(order: &Order) -> Result<Row> {
    Ok(Row {
        updated_at: moment(order.updated),
        body: text(order)?,
    })
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.updated_at);
    rows
}

fn moment(seconds: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + Duration::seconds(seconds)
}

fn written(seconds: i64) -> String {
    moment(seconds).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn text(record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|source| Error::new(ErrorKind::Internal, "write sample record").caused_by(source))
}

fn parsed(body: &str) -> Result<Value> {
    serde_json::from_str(body)
        .map_err(|source| Error::new(ErrorKind::Internal, "read sample record").caused_by(source))
}
