// Package alerts tries the alerts of config/monitoring: by promtool on made-up series, and once each on something
// that is really broken, scraped by a real Prometheus.
package alerts
