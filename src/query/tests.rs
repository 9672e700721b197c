//! Tests of the names and what they show.
