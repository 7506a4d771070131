"""Tables as shops export them (CSV, JSON, Parquet, Excel, SQL, data sets), read in batches of Arrow columns."""
