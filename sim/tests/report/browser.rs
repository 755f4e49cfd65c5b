//! How the report looks in a browser.
