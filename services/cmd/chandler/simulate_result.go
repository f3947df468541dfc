package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// simulated is what a simulation found; -o json prints it as one object on one line. What could not be measured is left
// out: of a broker that runs elsewhere, its processes and the raw rate.
type simulated struct {
	Agents      int `json:"agents"`
	Deployments int `json:"deployments"`
	Jobs        int `json:"jobs"` // one for each agent and deployment
	Succeeded   int `json:"succeeded"`
	Failed      int `json:"failed"` // ended otherwise
	Cancelled   int `json:"cancelled,omitempty"`
	Lost        int `json:"lost"`       // have no end
	Duplicated  int `json:"duplicated"` // programs run twice, ends told twice
	Away        int `json:"away,omitempty"`

	Events          int64   `json:"events"` // messages that the run had to store
	Bytes           int64   `json:"bytes"`  // of those
	Seconds         float64 `json:"seconds"`
	EventsPerSecond float64 `json:"events_per_second"`
	RawPerSecond    float64 `json:"raw_events_per_second,omitempty"`
	RawRatio        float64 `json:"raw_ratio,omitempty"`

	AcceptedP50  float64 `json:"offer_to_accepted_p50_s"`
	AcceptedP90  float64 `json:"offer_to_accepted_p90_s"`
	AcceptedP99  float64 `json:"offer_to_accepted_p99_s"`
	SucceededP50 float64 `json:"offer_to_succeeded_p50_s"`
	SucceededP90 float64 `json:"offer_to_succeeded_p90_s"`
	SucceededP99 float64 `json:"offer_to_succeeded_p99_s"`
	// From the first order to the last offer, and to the last job accepted, as stored.
	OfferedSeconds  float64 `json:"offered_s"`
	AcceptedSeconds float64 `json:"accepted_s"`

	BrokerRSS   float64 `json:"broker_rss_bytes_per_agent,omitempty"`
	ServicesRSS float64 `json:"services_rss_bytes_per_agent,omitempty"`
	AgentsRSS   float64 `json:"agents_rss_bytes_per_agent"` // all of their processes
	BrokerCPU   float64 `json:"broker_cpu_us_per_job,omitempty"`
	ServicesCPU float64 `json:"services_cpu_us_per_job,omitempty"`
	AgentsCPU   float64 `json:"agents_cpu_us_per_job"` // forked programs are not among it

	ConnectSeconds float64  `json:"connect_seconds"`
	Violations     []string `json:"violations"` // of the rules that package checker holds a run against
	Checked        bool     `json:"checked"`
	Seed           uint64   `json:"seed"`
	Exec           string   `json:"exec"`
	TLS            bool     `json:"tls"`
	Identities     bool     `json:"identities"`
	FileSystem     string   `json:"journal_file_system"`
	Processes      int      `json:"agent_processes"` // each has one journal
	Cores          int      `json:"machine_cores"`
	Machine        string   `json:"machine"`

	// Others is the share of the machine's processors that other processes, this one's and forked programs too, used meanwhile.
	Others float64 `json:"machine_used_by_others"`

	Scenario string  `json:"scenario"`
	Graceful bool    `json:"graceful,omitempty"`
	Spread   float64 `json:"starts_spread_s,omitempty"` // starts of programs are spread over so many seconds
	Leaves   int     `json:"leaves,omitempty"`          // nodes
	LeafRSS  float64 `json:"leaf_rss_bytes_per_agent,omitempty"`
	LeafCPU  float64 `json:"leaf_cpu_us_per_job,omitempty"`

	// What only some scenarios have.
	*stopped
	*returned
	*restored

	began time.Time
}

// compare takes the raw broker's rate into the result.
func (s *simulation) compare(raw float64) { s.result.RawPerSecond = raw }

// describe fills in what the run was.
func (s *simulation) describe() {
	r := &s.result
	r.Agents, r.Deployments, r.Jobs, r.Seed, r.Exec = len(s.members), len(s.names), len(s.members)*len(s.names), s.seed, s.exec
	r.Scenario, r.Graceful, r.Spread, r.Leaves = s.scenario.name, s.graceful, s.scenario.over(s.size).Seconds(), len(s.leaves)
	r.Away = len(s.members) - len(s.present())
	r.TLS, r.Identities = s.client.CA != "", s.client.key != ""
	r.Cores, r.Machine, r.Processes = runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, len(s.agents)
	if r.Violations == nil {
		r.Violations = []string{}
	}
}

// rates are derived from the run's time.
func (r *simulated) rates() {
	if r.Seconds > 0 {
		r.EventsPerSecond = float64(r.Events) / r.Seconds
	}
	r.RawRatio = rawRatio(r.EventsPerSecond, r.RawPerSecond)
}

// rawRatio is 0 where nothing was measured.
func rawRatio(run, raw float64) float64 {
	if raw <= 0 {
		return 0
	}
	return run / raw
}

// tellResult prints the outcome; an error where something is wrong.
func (s *simulation) tellResult(cmd *cobra.Command) error {
	r := s.result
	switch s.output {
	case formTable:
		if err := writeDetail(cmd.OutOrStdout(), formTable, r, "", append([]field{{"", " "}}, r.fields()...)); err != nil {
			return err
		}
	case formYAML:
		if err := writeData(cmd.OutOrStdout(), s.output, r); err != nil {
			return err
		}
	default:
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(r); err != nil {
			return err
		}
	}
	for _, v := range r.Violations {
		note(s.err, "%s", v)
	}
	return r.verdict()
}

// verdict is an error unless every job ended, and nothing was lost or done twice.
func (r simulated) verdict() error {
	switch {
	case r.Lost > 0 || r.Duplicated > 0:
		return fmt.Errorf("%d jobs are lost and %d were done twice", r.Lost, r.Duplicated)
	case len(r.Violations) > 0:
		return fmt.Errorf("%s violated, see above", plural(len(r.Violations), "rule was", "rules were"))
	case r.stopped == nil && r.Cancelled > 0:
		return fmt.Errorf("%s cancelled, and nothing was stopped", plural(r.Cancelled, "job was", "jobs were"))
	case r.stopped == nil && r.ended() != r.Jobs:
		return fmt.Errorf("%d of %d jobs ended", r.ended(), r.Jobs)
	}
	return errors.Join(r.stopped.verdict(r.Jobs-r.ended()), r.restored.verdict(r.Agents))
}

func (r simulated) ended() int { return r.Succeeded + r.Failed + r.Cancelled }

// fields are the result for people.
func (r simulated) fields() []field {
	seconds := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + " s" }
	three := func(a, b, c float64) string {
		return fmt.Sprintf("%s half of them, %s nine of ten, %s all but one of a hundred", seconds(a), seconds(b), seconds(c))
	}
	all := []field{
		{"Scenario", r.Scenario},
		{"Jobs", fmt.Sprintf("%s of %s: %s succeeded, %s failed, %s lost, %s done twice", count(r.Jobs), plural(r.Agents, "agent", "agents"), count(r.Succeeded), count(r.Failed), count(r.Lost), count(r.Duplicated))},
		{"Time", fmt.Sprintf("%s from the order to the last status; all offered after %s, accepted after %s", seconds(r.Seconds), seconds(r.OfferedSeconds), seconds(r.AcceptedSeconds))},
		{"Offer to accepted", three(r.AcceptedP50, r.AcceptedP90, r.AcceptedP99)},
		{"Offer to succeeded", three(r.SucceededP50, r.SucceededP90, r.SucceededP99)},
		{"Messages", fmt.Sprintf("%s stored, %s, %s a second", count(r.Events), byteSize(r.Bytes), count(int64(r.EventsPerSecond)))},
	}
	if r.RawPerSecond > 0 {
		all = append(all, field{"Raw broker", fmt.Sprintf("%s such messages a second; the run reached %.2f of that", count(int64(r.RawPerSecond)), r.RawRatio)})
	}
	cpu := fmt.Sprintf("%.0f µs a job, %s an agent", r.AgentsCPU, byteSize(int64(r.AgentsRSS)))
	if r.BrokerCPU > 0 {
		all = append(all,
			field{"Broker", fmt.Sprintf("%.0f µs a job, %s an agent", r.BrokerCPU, byteSize(int64(r.BrokerRSS)))},
			field{"Services", fmt.Sprintf("%.0f µs a job, %s an agent", r.ServicesCPU, byteSize(int64(r.ServicesRSS)))})
	}
	if r.Leaves > 0 {
		all = append(all, field{"Leaf nodes", fmt.Sprintf("%d: %.0f µs a job, %s an agent", r.Leaves, r.LeafCPU, byteSize(int64(r.LeafRSS)))})
	}
	all = slices.Concat(all, r.stopped.fields(r.Cancelled), r.returned.fields(), r.restored.fields())
	return append(all,
		field{"Agents", fmt.Sprintf("%s; connected in %s, %s, journals on %s", cpu, seconds(r.ConnectSeconds), plural(r.Processes, "process", "processes"), r.FileSystem)},
		field{"Machine", fmt.Sprintf("%s, %s, of which others used %.0f %%", r.Machine, plural(r.Cores, "core", "cores"), 100*r.Others)},
		field{"Seed", strconv.FormatUint(r.Seed, 10)})
}
