//! A sample API of a shop on loopback, and the project that loads it.
//!
//! ```text
//! request ─ key ─ rate limit ─ outage ─► orders    (cursor in the body, updated_at_gte)
//!                                     └► customers (Link header)
//! ```
//!
//! It behaves like APIs do: it wants a key, it answers one early request with 429, on its second day it is away for two
//! requests, and its data changes shape. The records are the same on every machine.

mod data;
mod project;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    ops::demo::shop::data::{Day, Row},
};

/// The only key the shop accepts, in the header `X-Api-Key`.
pub const API_KEY: &str = "sk_demo_teapot";

/// Orders of the first day. All are good.
pub const ORDERS_DAY_ONE: usize = 1_200;
/// Orders of the first day that have changed on the second; a tenth of these were cancelled, which is no deletion.
pub const ORDERS_UPDATED: usize = 120;
/// Good orders that are new on the second day, all with `shipping.carrier`; five write a quantity as `"2"`.
pub const ORDERS_NEW: usize = 80;
/// Orders of the first day that are tombstones on the second: `{"id", "updated_at", "deleted": true}`.
pub const ORDERS_DELETED: usize = 6;
/// Orders of the second day that do not fit the contract: a quantity `"two"`, no id, a null id and a customer id of
/// 2^63, all in new orders, and an update whose total is `12.999`.
pub const ORDERS_BAD: usize = 5;
/// Customers of the first day. All are good.
pub const CUSTOMERS_DAY_ONE: usize = 200;
/// Customers of the first day that have changed on the second.
pub const CUSTOMERS_UPDATED: usize = 8;
/// Good customers that are new on the second day.
pub const CUSTOMERS_NEW: usize = 5;
/// Customers of the second day that do not fit the contract: a new one of an unknown tier.
pub const CUSTOMERS_BAD: usize = 1;

/// Requests granted in a minute.
const REQUESTS_PER_MINUTE: u32 = 600;
/// The request of the first day that is answered 429, counted from 1.
const HURRIED_REQUEST: u32 = 3;
/// The requests for orders on the second day that are answered 503, counted from 1.
const OUTAGE: [u32; 2] = [2, 3];
/// Most records in a page, whatever `limit` or `per_page` asks for.
const PAGE_RECORDS_MAX: usize = 250;
/// Records in a page when the request does not say.
const PAGE_RECORDS: usize = 100;
/// Longest wait for open requests when the shop closes.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The running sample API. It closes when dropped; [`Shop::stop`] also waits for it.
pub struct Shop {
    base_url: String,
    counter: Arc<Counter>,
    close: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

/// What every request shares.
struct Counter {
    base_url: String,
    days: [Day; 2],
    clock: Clock,
    tally: Mutex<Tally>,
}

/// What was asked so far.
#[derive(Clone, Copy)]
struct Tally {
    /// 0 or 1.
    day: usize,
    requests_of_day: u32,
    order_requests_of_day: u32,
    minute: i64,
    requests_of_minute: u32,
}

/// What the counter says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Granted,
    TooMany { wait_seconds: i64 },
    Away,
}

type Params = Query<HashMap<String, String>>;

/// Opens the shop on a free loopback port, on its first day. `clock` cuts the minutes of the rate limit.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if no port can be bound.
pub async fn start(clock: Clock) -> Result<Shop> {
    let no_port = |source| Error::new(ErrorKind::Unavailable, "open sample shop").caused_by(source);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?;
    let base_url = format!("http://{}/v1", listener.local_addr().map_err(no_port)?);
    let counter = Arc::new(Counter {
        base_url: base_url.clone(),
        days: data::days()?,
        clock,
        tally: Mutex::new(Tally {
            day: 0,
            requests_of_day: 0,
            order_requests_of_day: 0,
            minute: 0,
            requests_of_minute: 0,
        }),
    });
    let router = Router::new()
        .route("/v1/orders", get(orders))
        .route("/v1/customers", get(customers))
        .layer(from_fn_with_state(Arc::clone(&counter), admit))
        .with_state(Arc::clone(&counter));
    let (close, closed) = oneshot::channel::<()>();
    let served = axum::serve(listener, router).with_graceful_shutdown(async {
        // A dropped sender closes the shop as well as a sent word.
        let _ = closed.await;
    });
    Ok(Shop {
        base_url,
        counter,
        close,
        task: tokio::spawn(served.into_future()),
    })
}

/// The files of a project that loads the shop, by path below `dir`, the project's folder.
///
/// One of them holds the key; the project refers to it by its absolute path, so `dir` must be absolute.
pub fn project_files(dir: &Path, base_url: &str) -> Vec<(&'static str, String)> {
    project::files(dir, base_url)
}

impl Shop {
    /// What request paths are joined to, `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Moves the data to its second day. More calls change nothing.
    pub fn next_day(&self) {
        let mut tally = self.counter.tally();
        if tally.day == 0 {
            tally.day = 1;
            tally.requests_of_day = 0;
            tally.order_requests_of_day = 0;
        }
    }

    /// Closes the shop: open requests are answered, new ones are not.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if open requests take longer than five seconds; [`ErrorKind::Internal`] if the server failed.
    pub async fn stop(self) -> Result<()> {
        // The receiver is gone only if the server ended by itself; the task says why.
        let _ = self.close.send(());
        let ended = timeout(STOP_MAX, self.task).await.map_err(|source| {
            Error::new(ErrorKind::Limit, "close sample shop")
                .with("seconds_max", STOP_MAX.as_secs())
                .caused_by(source)
        })?;
        let failed = || Error::new(ErrorKind::Internal, "serve sample shop");
        ended
            .map_err(|source| failed().caused_by(source))?
            .map_err(|source| failed().caused_by(source))
    }
}

impl Counter {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counting cannot panic half way, so the numbers are good even then.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn today(&self) -> &Day {
        &self.days[self.tally().day]
    }
}

impl Tally {
    /// Counts one request and says what becomes of it.
    fn count(&mut self, for_orders: bool, now: Timestamp) -> Admission {
        let minute = now.timestamp().div_euclid(60);
        if minute != self.minute {
            self.minute = minute;
            self.requests_of_minute = 0;
        }
        if self.requests_of_minute == REQUESTS_PER_MINUTE {
            return Admission::TooMany {
                wait_seconds: seconds_left(now),
            };
        }
        self.requests_of_minute += 1;
        self.requests_of_day += 1;
        if self.day == 0 && self.requests_of_day == HURRIED_REQUEST {
            return Admission::TooMany { wait_seconds: 1 };
        }
        if !for_orders {
            return Admission::Granted;
        }
        self.order_requests_of_day += 1;
        if self.day == 1 && OUTAGE.contains(&self.order_requests_of_day) {
            return Admission::Away;
        }
        Admission::Granted
    }
}

/// Lets a request through that has the key and is within the limit, and writes the limit into its answer.
async fn admit(State(counter): State<Arc<Counter>>, request: Request, next: Next) -> Response {
    let key = request.headers().get("x-api-key").map(HeaderValue::as_bytes);
    if key != Some(API_KEY.as_bytes()) {
        return refusal(
            StatusCode::UNAUTHORIZED,
            "the header X-Api-Key is missing or wrong",
        );
    }
    let now = counter.clock.now();
    let for_orders = request.uri().path().ends_with("/orders");
    let (admission, granted) = {
        let mut tally = counter.tally();
        (tally.count(for_orders, now), tally.requests_of_minute)
    };
    let mut response = match admission {
        Admission::Granted => next.run(request).await,
        Admission::TooMany { wait_seconds } => {
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait_seconds));
            response
        }
        Admission::Away => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the order system is being restarted",
        ),
    };
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderValue::from(REQUESTS_PER_MINUTE),
    );
    headers.insert(
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderValue::from(REQUESTS_PER_MINUTE - granted),
    );
    headers.insert(
        HeaderName::from_static("x-ratelimit-reset"),
        HeaderValue::from(seconds_left(now)),
    );
    response
}

async fn orders(State(counter): State<Arc<Counter>>, Query(params): Params) -> Response {
    let rows = &counter.today().orders;
    let limit = match page_records(&params, "limit") {
        Ok(limit) => limit,
        Err(response) => return response,
    };
    let filtered = match params
        .get("updated_at_gte")
        .map(|text| DateTime::parse_from_rfc3339(text))
    {
        Some(Ok(from)) => rows.partition_point(|row| row.updated_at < from),
        Some(Err(_)) => return refusal(StatusCode::BAD_REQUEST, "updated_at_gte is not an RFC 3339 time"),
        None => 0,
    };
    let start = match params.get("cursor").map(|text| position(rows, text)) {
        Some(Some(position)) => position.max(filtered),
        Some(None) => return refusal(StatusCode::BAD_REQUEST, "cursor was not made here"),
        None => filtered,
    };
    let end = rows.len().min(start + limit);
    let next = (end < rows.len()).then(|| token(rows, end));
    let records: Vec<&str> = rows[start..end].iter().map(|row| row.body.as_str()).collect();
    let body = format!(
        "{{\"data\":[{}],\"next_cursor\":{}}}",
        records.join(","),
        Value::from(next)
    );
    json_response(StatusCode::OK, body)
}

async fn customers(State(counter): State<Arc<Counter>>, Query(params): Params) -> Response {
    let records = &counter.today().customers;
    let per_page = match page_records(&params, "per_page") {
        Ok(per_page) => per_page,
        Err(response) => return response,
    };
    let Some(page) = params
        .get("page")
        .map_or(Some(1), |text| text.parse().ok())
        .filter(|&page: &usize| page > 0)
    else {
        return refusal(StatusCode::BAD_REQUEST, "page is not a number from 1");
    };
    let start = records.len().min((page - 1).saturating_mul(per_page));
    let end = records.len().min(start + per_page);
    let mut response = json_response(StatusCode::OK, format!("[{}]", records[start..end].join(",")));
    let link = |page: usize, rel: &str| {
        format!(
            "<{}/customers?page={page}&per_page={per_page}>; rel=\"{rel}\"",
            counter.base_url
        )
    };
    let last = records.len().div_ceil(per_page);
    let links = if end < records.len() {
        format!("{}, {}", link(page + 1, "next"), link(last, "last"))
    } else {
        link(1, "first")
    };
    if let Ok(links) = HeaderValue::from_str(&links) {
        response.headers_mut().insert(header::LINK, links);
    }
    response
}

/// The size of the page asked for, within bounds, or why it cannot be.
#[expect(clippy::result_large_err, reason = "the error is the answer itself")]
fn page_records(params: &HashMap<String, String>, name: &str) -> Result<usize, Response> {
    let Some(text) = params.get(name) else {
        return Ok(PAGE_RECORDS);
    };
    match text.parse() {
        Ok(records @ 1..) => Ok(PAGE_RECORDS_MAX.min(records)),
        _ => Err(refusal(
            StatusCode::BAD_REQUEST,
            "the page size is not a number from 1",
        )),
    }
}

/// The cursor for the row at `index`: the moment of the row before it, and how many rows of that moment came before.
///
/// It stays right when orders change between two pages, which a bare index would not.
fn token(rows: &[Row], index: usize) -> String {
    let moment = rows[index - 1].updated_at;
    let seen = index - rows.partition_point(|row| row.updated_at < moment);
    URL_SAFE_NO_PAD.encode(format!("{}+{seen}", moment.timestamp()))
}

/// Where a cursor points to, or `None` if it is not one.
fn position(rows: &[Row], cursor: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (moment, seen) = text.split_once('+')?;
    let moment = DateTime::from_timestamp(moment.parse().ok()?, 0)?;
    let before = rows.partition_point(|row| row.updated_at < moment);
    let seen: usize = seen.parse().ok()?;
    Some(before.saturating_add(seen).min(rows.len()))
}

fn seconds_left(now: Timestamp) -> i64 {
    60 - now.timestamp().rem_euclid(60)
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    json_response(
        status,
        json!({"error": {"status": status.as_u16(), "detail": detail}}).to_string(),
    )
}

fn json_response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, Response};

    use super::*;

    /// A client that sends a request again at once when the shop says not now.
    struct Guest {
        shop: Shop,
        client: Client,
        statuses: Vec<u16>,
    }

    async fn guest() -> Guest {
        let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
        Guest {
            shop: start(clock).await.unwrap(),
            client: Client::builder().build().unwrap(),
            statuses: Vec::new(),
        }
    }

    impl Guest {
        async fn send(&mut self, url: &str) -> Response {
            for _ in 0..4 {
                let response = self
                    .client
                    .get(url)
                    .header("X-Api-Key", API_KEY)
                    .send()
                    .await
                    .unwrap();
                self.statuses.push(response.status().as_u16());
                if response.status() == 200 {
                    return response;
                }
            }
            panic!("{url} answered {:?}", self.statuses);
        }

        async fn orders(&mut self, filter: &str) -> Vec<Value> {
            let mut records = Vec::new();
            let mut cursor = String::new();
            for _ in 0..30 {
                let url = format!("{}/orders?limit=100{filter}{cursor}", self.shop.base_url());
                let page = body(self.send(&url).await).await;
                records.extend(page["data"].as_array().unwrap().iter().cloned());
                match &page["next_cursor"] {
                    Value::String(next) => cursor = format!("&cursor={next}"),
                    end => {
                        assert_eq!(*end, Value::Null);
                        return records;
                    }
                }
            }
            panic!("paging did not end");
        }

        async fn customers(&mut self) -> Vec<Value> {
            let mut records = Vec::new();
            let mut url = format!("{}/customers?per_page=50", self.shop.base_url());
            for _ in 0..10 {
                let response = self.send(&url).await;
                let link = response.headers()["link"].to_str().unwrap().to_owned();
                records.extend(body(response).await.as_array().unwrap().iter().cloned());
                match link.split_once(">; rel=\"next\"") {
                    Some((next, _)) => url = next.trim_start_matches('<').to_owned(),
                    None => return records,
                }
            }
            panic!("paging did not end");
        }
    }

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    fn newest(orders: &[Value]) -> &str {
        orders.last().unwrap()["updated_at"].as_str().unwrap()
    }

    #[tokio::test]
    async fn nobody_gets_in_without_the_key() {
        let guest = guest().await;
        let url = format!("{}/orders", guest.shop.base_url());
        for key in [None, Some("sk_demo_coffeepot")] {
            let mut request = guest.client.get(&url);
            if let Some(key) = key {
                request = request.header("X-Api-Key", key);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(body(response).await["error"]["status"], 401);
        }
    }

    #[tokio::test]
    async fn the_third_request_comes_too_soon() {
        let guest = guest().await;
        let url = format!("{}/orders?limit=1", guest.shop.base_url());
        for (number, status) in [(1, 200), (2, 200), (3, 429), (4, 200)] {
            let response = guest
                .client
                .get(&url)
                .header("X-Api-Key", API_KEY)
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), status, "request {number}");
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            assert_eq!(header("retry-after").as_deref(), (status == 429).then_some("1"));
            assert_eq!(header("x-ratelimit-limit").unwrap(), "600");
            assert_eq!(
                header("x-ratelimit-remaining").unwrap(),
                (600 - number).to_string()
            );
            assert_eq!(header("x-ratelimit-reset").unwrap(), "60");
        }
    }

    #[test]
    fn a_minute_has_its_limit() {
        let mut tally = Tally {
            day: 1,
            requests_of_day: 0,
            order_requests_of_day: 0,
            minute: 0,
            requests_of_minute: 0,
        };
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        for _ in 0..REQUESTS_PER_MINUTE {
            assert_eq!(tally.count(false, at(30)), Admission::Granted);
        }
        assert_eq!(
            tally.count(false, at(45)),
            Admission::TooMany { wait_seconds: 15 }
        );
        assert_eq!(tally.count(false, at(60)), Admission::Granted);
    }

    #[tokio::test]
    async fn the_first_day_has_good_orders_in_order_of_change() {
        let mut guest = guest().await;
        let orders = guest.orders("").await;
        assert_eq!(orders.len(), ORDERS_DAY_ONE);
        assert!(orders.is_sorted_by_key(|order| order["updated_at"].as_str()));
        let mut ids: Vec<i64> = orders.iter().map(|order| order["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ORDERS_DAY_ONE);
        for order in &orders {
            let lines = order["lines"].as_array().unwrap();
            let cents = |text: &Value| text.as_str().unwrap().replace('.', "").parse::<u64>().unwrap();
            let goods: u64 = lines
                .iter()
                .map(|line| cents(&line["unit_price"]) * line["quantity"].as_u64().unwrap())
                .sum();
            assert_eq!(cents(&order["total"]), goods + cents(&order["shipping"]["cost"]));
        }
    }

    #[tokio::test]
    async fn the_second_day_has_what_the_demo_tells() {
        let mut guest = guest().await;
        let first = guest.orders("").await;
        guest.shop.next_day();
        guest.statuses.clear();
        let changed = guest.orders(&format!("&updated_at_gte={}", newest(&first))).await;
        assert_eq!(guest.statuses, [200, 503, 503, 200, 200]);

        // The newest order of the first day is listed again: the filter includes its bound.
        let changes = ORDERS_UPDATED + ORDERS_NEW + ORDERS_DELETED + ORDERS_BAD;
        assert_eq!(changed.len(), changes + 1);
        let known: Vec<&Value> = first.iter().map(|order| &order["id"]).collect();
        let count = |keep: &dyn Fn(&Value) -> bool| changed.iter().filter(|order| keep(order)).count();
        let is_new = |order: &Value| !known.contains(&&order["id"]);
        assert_eq!(count(&is_new), ORDERS_NEW + 4);
        assert_eq!(count(&|order| order["deleted"] == true), ORDERS_DELETED);
        assert_eq!(
            count(&|order| order["deleted"] == true && order.as_object().unwrap().len() == 3),
            ORDERS_DELETED
        );
        assert_eq!(
            count(&|order| order["shipping"]["carrier"].is_string()),
            ORDERS_NEW + 4
        );
        assert_eq!(
            count(&|order| is_new(order) && order["shipping"]["carrier"].is_null()),
            0
        );
        assert_eq!(count(&|order| order["lines"][0]["quantity"] == "2"), 5);
        assert_eq!(count(&|order| order["lines"][0]["quantity"] == "two"), 1);
        assert_eq!(count(&|order| order["total"] == "12.999"), 1);
        assert_eq!(count(&|order| order.get("id").is_none()), 1);
        assert_eq!(count(&|order| order.get("id") == Some(&Value::Null)), 1);
        assert_eq!(
            count(&|order| order["customer"]["id"].as_u64() == Some(1 << 63)),
            1
        );

        let all = guest.orders("").await;
        assert_eq!(all.len(), ORDERS_DAY_ONE + ORDERS_NEW + 4);
    }

    #[tokio::test]
    async fn a_cursor_outlives_the_night() {
        let mut guest = guest().await;
        let url = format!("{}/orders?limit=100", guest.shop.base_url());
        let page = body(guest.send(&url).await).await;
        let all = guest.orders("").await;
        guest.shop.next_day();
        let cursor = page["next_cursor"].as_str().unwrap();
        let rest = guest.orders(&format!("&cursor={cursor}")).await;
        // Nothing that stayed as it was is skipped, although a tenth of the earlier orders moved to the end.
        let unchanged = all[100..].iter().filter(|order| rest.contains(order)).count();
        let moved = all[100..].iter().filter(|order| !rest.contains(order));
        let still_listed = moved
            .filter(|order| rest.iter().any(|later| later["id"] == order["id"]))
            .count();
        assert_eq!(unchanged + still_listed, ORDERS_DAY_ONE - 100);
    }

    #[tokio::test]
    async fn customers_are_paged_by_link() {
        let mut guest = guest().await;
        let first = guest.customers().await;
        assert_eq!((first.len(), guest.statuses.len()), (CUSTOMERS_DAY_ONE, 5));
        guest.shop.next_day();
        let second = guest.customers().await;
        assert_eq!(second.len(), CUSTOMERS_DAY_ONE + CUSTOMERS_NEW + CUSTOMERS_BAD);
        let changed = first
            .iter()
            .zip(&second)
            .filter(|(before, after)| before != after)
            .count();
        assert_eq!(changed, CUSTOMERS_UPDATED);
        let platinum = second
            .iter()
            .filter(|customer| customer["tier"] == "platinum")
            .count();
        assert_eq!(platinum, CUSTOMERS_BAD);
    }

    #[tokio::test]
    async fn every_shop_has_the_same_records() {
        let (mut one, mut other) = (guest().await, guest().await);
        for _ in 0..2 {
            assert_eq!(one.orders("").await, other.orders("").await);
            assert_eq!(one.customers().await, other.customers().await);
            one.shop.next_day();
            other.shop.next_day();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused() {
        let guest = guest().await;
        for query in [
            "limit=0",
            "limit=x",
            "cursor=%21",
            "cursor=bm90IG9uZQ",
            "updated_at_gte=yesterday",
        ] {
            let url = format!("{}/orders?{query}", guest.shop.base_url());
            // The third request of the day is not wanted here, whatever it asks.
            guest.shop.next_day();
            guest.shop.counter.tally().order_requests_of_day = 9;
            let response = guest
                .client
                .get(&url)
                .header("X-Api-Key", API_KEY)
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 400, "{query}");
        }
    }

    #[tokio::test]
    async fn a_closed_shop_answers_nobody() {
        let mut guest = guest().await;
        let url = format!("{}/customers", guest.shop.base_url());
        assert_eq!(guest.send(&url).await.status(), 200);
        guest.shop.stop().await.unwrap();
        assert!(guest.client.get(&url).send().await.unwrap_err().is_connect());
    }

    #[test]
    fn the_project_names_the_shop_and_its_key_file() {
        let files = project_files(Path::new("/tmp/it's here"), "http://127.0.0.1:9/v1");
        let (_, landfall) = &files[0];
        assert!(
            landfall.contains("base_url: http://127.0.0.1:9/v1\n"),
            "{landfall}"
        );
        assert!(
            landfall.contains("value: '${file:/tmp/it''s here/shop-api-key}'"),
            "{landfall}"
        );
        assert!(
            !landfall.contains(API_KEY) && !landfall.contains('@'),
            "{landfall}"
        );
        assert_eq!(files[3], ("shop-api-key", format!("{API_KEY}\n")));
    }
}
