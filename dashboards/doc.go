// Package dashboards declares what operators watch: two Grafana boards, as Go values from which
// rollout.json and pipeline.json are generated (go test ./dashboards -update), and beside them the Prometheus
// alerts of rules.yml with their tests in rules_test.yml.
//
// Every expression names only metrics that Chandler's own processes export; a test evaluates each against a
// real Prometheus that scrapes a real run, so that a renamed metric fails a test instead of emptying a panel.
package dashboards
