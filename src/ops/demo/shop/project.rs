//! The project folder that loads the shop.

use std::path::Path;

use crate::ops::demo::shop::API_KEY;

const LANDFALL: &str = include_str!("landfall.yml");
const ORDERS: &str = include_str!("shop.orders.odcs.yaml");
const CUSTOMERS: &str = include_str!("shop.customers.odcs.yaml");
const KEY_FILE: &str = "shop-api-key";

/// Every file with its path below `dir`.
pub(super) fn files(dir: &Path, base_url: &str) -> Vec<(&'static str, String)> {
    let key_file = dir.join(KEY_FILE).display().to_string();
    // Inside single quotes YAML reads everything as it is, except that a quote is written twice.
    let landfall = LANDFALL
        .replace("@BASE_URL@", base_url)
        .replace("@KEY_FILE@", &key_file.replace('\'', "''"));
    vec![
        ("landfall.yml", landfall),
        ("contracts/shop.orders.odcs.yaml", ORDERS.to_owned()),
        ("contracts/shop.customers.odcs.yaml", CUSTOMERS.to_owned()),
        (KEY_FILE, format!("{API_KEY}\n")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Deletes, auth::Auth, paginate::Paginate, read},
        contract::{ColumnType, odcs},
    };

    #[test]
    fn the_project_file_is_read_without_a_word() {
        let dir = Path::new("/tmp/it's here");
        let files = files(dir, "http://127.0.0.1:9/v1");
        let loaded = read::parse(&files[0].1, dir).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let [source] = loaded.project.sources.as_slice() else {
            panic!("one source")
        };
        let Auth::ApiKeyHeader { name, value } = &source.auth else {
            panic!("{:?}", source.auth)
        };
        assert_eq!(
            (name.as_str(), value.to_string().as_str()),
            ("x-api-key", "${file:/tmp/it's here/shop-api-key}")
        );
        let [orders, customers] = source.streams.as_slice() else {
            panic!("two streams")
        };
        assert!(matches!(orders.paginate.next, Paginate::Cursor { .. }));
        assert_eq!(orders.table.apply_as_deletes.as_deref(), Some("deleted = true"));
        assert_eq!(orders.table.deletes, Deletes::Soft);
        assert!(matches!(customers.paginate.next, Paginate::LinkHeader));
        for (stream, (name, _)) in [orders, customers].into_iter().zip(&files[1..]) {
            assert_eq!(stream.contract, dir.join(name));
        }
    }

    #[test]
    fn the_contracts_are_read_and_name_the_keys() {
        let decimal = ColumnType::Decimal {
            precision: 12,
            scale: 2,
        };
        for (text, columns) in [(ORDERS, 12), (CUSTOMERS, 8)] {
            let contract = odcs::parse(text, "contract").unwrap();
            assert_eq!(contract.columns.len(), columns);
            assert_eq!(contract.status, "active");
            let keys: Vec<&str> = contract
                .columns
                .iter()
                .filter(|column| column.primary_key)
                .map(|column| column.name.as_str())
                .collect();
            assert_eq!(keys, ["id"]);
        }
        let orders = odcs::parse(ORDERS, "contract").unwrap();
        let column = |name: &str| orders.columns.iter().find(|column| column.name == name).unwrap();
        assert_eq!(column("total").kind, decimal);
        assert_eq!(column("status").rules.allowed.as_ref().map(Vec::len), Some(5));
        assert!(matches!(column("updated_at").kind, ColumnType::Timestamp(_)));
        assert!(matches!(&column("customer").kind, ColumnType::Object(fields) if fields.len() == 3));
        let ColumnType::Array(line) = &column("lines").kind else {
            panic!("lines is an array")
        };
        assert!(matches!(&line.kind, ColumnType::Object(fields) if fields[3].kind == decimal));
    }
}
