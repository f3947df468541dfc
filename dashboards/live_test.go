package dashboards

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryPanelShowsSomethingOfARealRun(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		unavailable(t, "evaluating boards needs Prometheus: apt-get install prometheus")
	}
	f := startFleet(t, 2)
	p := startPrometheus(t, f.metrics)
	f.deploy()
	f.spoil()

	for _, b := range Boards() {
		for _, r := range b.Rows {
			for _, panel := range r.Panels {
				for _, q := range panel.Queries {
					eventually(t, fmt.Sprintf("board %s, panel %q: %s", b.UID, panel.Title, q.Expr), func() error { return p.shows(q) })
				}
			}
		}
		for _, v := range b.Variables {
			eventually(t, "choices of "+v.Name, func() error {
				series, err := p.query(fmt.Sprintf("count by (%s) (%s)", v.Name, v.Metric))
				if err == nil && len(series) < 2 {
					err = fmt.Errorf("%d choices of the two deployments", len(series))
				}
				return err
			})
		}
	}
	for _, a := range readAlerts(t) {
		if _, err := p.query(a.Expr); err != nil {
			t.Errorf("alert %s: %v", a.Alert, err)
		}
	}
	eventually(t, "the alert of the dead letter", func() error { return p.fires("ChandlerDeadLetters") })
}

// prometheusServer is a real Prometheus.
type prometheusServer struct{ url string }

func startPrometheus(t *testing.T, targets []string) prometheusServer {
	t.Helper()
	rules, err := filepath.Abs("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: chandler, static_configs: [{targets: [%q]}]}
  - {job_name: chandler-agents, static_configs: [{targets: [%s]}]}
`, rules, targets[0], `"`+strings.Join(targets[1:], `", "`)+`"`)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process := startProcess(t, exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"))
	p := prometheusServer{"http://" + process.await(t, `msg="Listening on" address=(127[0-9.:]+)`)[1]}
	eventually(t, "Prometheus scrapes every process", func() error {
		up, err := p.query("up == 1")
		if err == nil && len(up) != len(targets) {
			err = fmt.Errorf("%d of %d are up", len(up), len(targets))
		}
		return err
	})
	return p
}

// shows says what is wrong with a panel's query as Grafana would ask it.
func (p prometheusServer) shows(q Query) error {
	series, err := p.query(strings.NewReplacer("$__rate_interval", "1m", "$deployment", ".*").Replace(q.Expr))
	switch {
	case err != nil:
		return err
	case q.Quiet:
		return nil
	case len(series) == 0:
		return errors.New("no series")
	case !slices.ContainsFunc(series, func(s sample) bool { return s.Value[1] != "NaN" }):
		return errors.New("every series is not a number")
	}
	return nil
}

// sample is one series at one time: the time and the value as text.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

func (p prometheusServer) query(expr string) ([]sample, error) {
	var found struct {
		Result []sample `json:"result"`
	}
	return found.Result, p.get("/api/v1/query?query="+url.QueryEscape(expr), &found)
}

// fires says whether an alert fires.
func (p prometheusServer) fires(name string) error {
	var found struct {
		Alerts []struct {
			Labels map[string]string `json:"labels"`
			State  string            `json:"state"`
		} `json:"alerts"`
	}
	if err := p.get("/api/v1/alerts", &found); err != nil {
		return err
	}
	for _, a := range found.Alerts {
		if a.Labels["alertname"] == name && a.State == "firing" {
			return nil
		}
	}
	return fmt.Errorf("it is not among %v", found.Alerts)
}

func (p prometheusServer) get(path string, data any) error {
	resp, err := http.Get(p.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   any    `json:"data"`
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus answers %s: %s", answer.Status, answer.Error)
	}
	return nil
}
