//! Whole data planes on loopback, with real stores.
