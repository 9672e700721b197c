//! The keys of the standard, as far as they are read or passed over.

use crate::yaml::section::Section;

const fn section(
    title: &'static str,
    keys: &'static [&'static str],
    planned: &'static [&'static str],
) -> Section {
    Section::names(title, keys).planned(planned).null_is_absent()
}

/// The whole file.
pub(super) static CONTRACT: Section = section(
    "a data contract",
    &[
        "apiVersion",
        "kind",
        "id",
        "version",
        "status",
        "schema",
        // Passed over.
        "authoritativeDefinitions",
        "context",
        "contractCreatedTs",
        "customProperties",
        "dataProduct",
        "description",
        "domain",
        "name",
        "price",
        "roles",
        "servers",
        "slaDefaultElement",
        "slaProperties",
        "support",
        "tags",
        "team",
        "tenant",
    ],
    &[],
);

/// An element of `schema`.
pub(super) static OBJECT: Section = section(
    "an object",
    &[
        "name",
        "logicalType",
        "properties",
        "quality",
        // Passed over.
        "authoritativeDefinitions",
        "businessName",
        "context",
        "customProperties",
        "dataGranularityDescription",
        "deprecated",
        "description",
        "id",
        "physicalName",
        "physicalType",
        "relationships",
        "synonyms",
        "tags",
    ],
    &[],
);

/// A rule in SQL under `quality`.
pub(super) static RULE: Section = section(
    "a rule",
    &[
        "name",
        "type",
        "engine",
        "implementation",
        "severity",
        "description",
        // Passed over.
        "authoritativeDefinitions",
        "businessImpact",
        "customProperties",
        "dimension",
        "id",
        "method",
        "schedule",
        "scheduler",
        "tags",
        "unit",
    ],
    &[],
);

/// An element of `properties`, or `items`.
pub(super) static PROPERTY: Section = section(
    "a property",
    &[
        "name",
        "logicalType",
        "physicalType",
        "logicalTypeOptions",
        "required",
        "unique",
        "primaryKey",
        "primaryKeyPosition",
        "properties",
        "items",
        "classification",
        "description",
        "quality",
        "customProperties",
        // Passed over.
        "authoritativeDefinitions",
        "businessName",
        "criticalDataElement",
        "deprecated",
        "encryptedName",
        "examples",
        "id",
        "partitionKeyPosition",
        "partitioned",
        "physicalName",
        "relationships",
        "semanticType",
        "synonyms",
        "tags",
        "transformDescription",
        "transformLogic",
        "transformSourceObjects",
    ],
    &["enum"],
);

/// `logicalTypeOptions` of text.
pub(super) static STRING_OPTIONS: Section = section(
    "options of a string",
    &["minLength", "maxLength", "pattern", "format"],
    &[],
);

/// `logicalTypeOptions` of numbers.
pub(super) static NUMBER_OPTIONS: Section = section(
    "options of a number",
    &["minimum", "maximum", "format"],
    &["exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
);

/// `logicalTypeOptions` of dates and timestamps.
pub(super) static TIME_OPTIONS: Section = section(
    "options of a date or timestamp",
    &["format", "timezone", "defaultTimezone"],
    &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
);

/// `logicalTypeOptions` of arrays.
pub(super) static ARRAY_OPTIONS: Section =
    section("options of an array", &["minItems", "maxItems"], &["uniqueItems"]);

/// `logicalTypeOptions` of everything else.
pub(super) static NO_OPTIONS: Section =
    section("options", &[], &["minProperties", "maxProperties", "required"]);
