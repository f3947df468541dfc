package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// maxOwnAgents is what a broker or leaf node of our own takes: each agent is a file descriptor of its process, of which many systems
	// allow 20,000.
	maxOwnAgents = 15_000
	// maxOtherAgents is what one machine can hold at all.
	maxOtherAgents = 200_000
	// maxAgentsEach is how many agents one process holds, for the same reason.
	maxAgentsEach      = 5_000
	maxLeaves          = 14       // so that they take no more agents than maxOtherAgents
	maxSimulated       = 1_000    // deployments
	maxSimulatedOutput = 64 << 10 // bytes of output of a program
	maxSimulatedSpread = 3
)

// How programs are run.
const (
	execScripted = "scripted"
	execFork     = "fork"
)

// simulateFlags are those of simulate, as typed.
type simulateFlags struct {
	size, deployments, outputBytes  int
	leafNodes                       int
	scenarioName                    string
	graceful                        bool
	exec                            string
	duration                        time.Duration
	spread, failures, offline, flap float64
	content, keep                   bool
	noTLS, noIdentities             bool
	seed                            uint64
	dir, token, profile             string
	within                          time.Duration
	asked                           *asking
}

func (f *simulateFlags) register(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.size, "agents", 100, fmt.Sprintf("how many agents; a broker of its own takes %s", count(maxOwnAgents)))
	flags.IntVar(&f.leafNodes, "leaves", 0, fmt.Sprintf("spread the agents over so many leaf nodes, each of which takes %s", count(maxOwnAgents)))
	flags.StringVar(&f.scenarioName, "scenario", scenarioInstall, "what happens while jobs are under way: "+strings.Join(scenarioNames(), ", "))
	flags.BoolVar(&f.graceful, "graceful", false, "with --scenario restart: the broker ends in order")
	flags.IntVar(&f.deployments, "deployments", 1, "how many deployments, one after the other as fast as they are taken; every agent gets a job of each")
	flags.StringVar(&f.exec, "exec", execScripted, "scripted: programs only last; fork: each job runs a real /bin/true")
	flags.DurationVar(&f.duration, "duration", 0, "how long a program runs (the median)")
	flags.Float64Var(&f.spread, "spread", 0, "how much --duration varies: sigma of a log-normal distribution, such as 0.5")
	flags.Float64Var(&f.failures, "failures", 0, "share of attempts that fail, 0 to 1; some for good, some are tried again")
	flags.IntVar(&f.outputBytes, "output-bytes", 0, "how much a program writes (the median), which goes into the job's log")
	flags.BoolVar(&f.content, "content", false, "agents tell also that they fetch the package")
	flags.Float64Var(&f.offline, "offline", 0, "share of agents that are away when the deployments come, and come back after the others are done")
	flags.Float64Var(&f.flap, "flap", 0, "share of agents whose connection breaks again and again")
	flags.Uint64Var(&f.seed, "seed", 0, "what chance begins with: the same seed gives the same agents and the same outcomes on a broker of its own (default: drawn, and shown)")
	flags.BoolVar(&f.noTLS, "no-tls", false, "a broker in clear text")
	flags.BoolVar(&f.noIdentities, "no-identities", false, "a broker that asks nobody who he is")
	flags.StringVar(&f.token, "token", "", "file with an enrolment token: simulate against the broker of the context, where agents enrol with it before the run")
	flags.StringVar(&f.dir, "dir", "", "new or empty directory of the broker's data and the agents' journals, which decides their file system (default: one below the directory for temporary files)")
	flags.BoolVar(&f.keep, "keep", false, "leave --dir there")
	flags.DurationVar(&f.within, "timeout", 10*time.Minute, "how long connecting, and then the run, may take each; what has not ended by then is lost")
	flags.StringVar(&f.profile, "cpuprofile", "", "directory for profiles of every process while it is measured")
	_ = flags.MarkHidden("cpuprofile")
	completeWords(cmd, "exec", execScripted, execFork)
	completeWords(cmd, "scenario", scenarioNames()...)
	f.asked = a.asksPassphrase(cmd)
}

// validate refuses what cannot be simulated. named says that a context was chosen.
func (f simulateFlags) validate(named bool) error {
	most := maxOwnAgents * max(1, f.leafNodes)
	if f.token != "" {
		most = maxOtherAgents
	}
	switch {
	case f.size < 1:
		return fmt.Errorf("--agents %d: at least 1", f.size)
	case f.size > most && f.token == "":
		return fmt.Errorf("--agents %d: they can be at most %s, since every connection is an open file of the broker's process or the leaf node's and systems allow about 20,000; more need more leaf nodes (--leaves), or a broker that runs elsewhere (--token)", f.size, count(most))
	case f.size > most:
		return fmt.Errorf("--agents %d: at most %s", f.size, count(most))
	case f.deployments < 1 || f.deployments > maxSimulated:
		return fmt.Errorf("--deployments %d: between 1 and %s", f.deployments, count(maxSimulated))
	case f.exec != execScripted && f.exec != execFork:
		return fmt.Errorf("--exec %q: it must be %s or %s", f.exec, execScripted, execFork)
	case f.outputBytes < 0 || f.outputBytes > maxSimulatedOutput:
		return fmt.Errorf("--output-bytes %d: between 0 and %d", f.outputBytes, maxSimulatedOutput)
	case f.within <= 0:
		return fmt.Errorf("--timeout %s: it must be more than 0", f.within)
	case f.token != "" && (f.noTLS || f.noIdentities):
		return errors.New("--no-tls and --no-identities are of a broker of its own: leave them out with --token")
	case f.token == "" && named:
		return errors.New("--context names a broker that runs elsewhere, where agents must enrol: say --token FILE too (`chandler token create` makes one), or leave --context out")
	}
	return errors.Join(f.validateTimes(), f.validateShares(), f.validateScenario())
}

func (f simulateFlags) validateScenario() error {
	scenario, ok := scenarioNamed(f.scenarioName)
	switch {
	case !ok:
		return fmt.Errorf("--scenario %q: it must be one of %s", f.scenarioName, strings.Join(scenarioNames(), ", "))
	case f.graceful && scenario.name != scenarioRestart:
		return errors.New("--graceful is of --scenario restart")
	case scenario.name != scenarioInstall && (f.offline > 0 || f.flap > 0):
		return fmt.Errorf("--offline and --flap: in scenario %s all agents are there", scenario.name)
	case scenario.own && f.token != "":
		return fmt.Errorf("--scenario %s ends the broker, which must be one of its own: leave --token out", scenario.name)
	case f.leafNodes < 0 || f.leafNodes > maxLeaves:
		return fmt.Errorf("--leaves %d: between 0 and %d", f.leafNodes, maxLeaves)
	case f.leafNodes > 0 && (f.token != "" || f.noIdentities):
		return errors.New("--leaves: leaf nodes are of a broker of its own that asks who everybody is; leave out --token and --no-identities")
	}
	return nil
}

func (f simulateFlags) validateTimes() error {
	switch {
	case f.duration < 0:
		return fmt.Errorf("--duration %s: it must not be less than 0", f.duration)
	case !(f.spread >= 0 && f.spread <= maxSimulatedSpread):
		return fmt.Errorf("--spread %v: between 0 and %d", f.spread, maxSimulatedSpread)
	case f.spread > 0 && f.duration == 0:
		return errors.New("--spread is how much --duration varies: say --duration too")
	}
	return nil
}

func (f simulateFlags) validateShares() error {
	for _, share := range []struct {
		flag  string
		value float64
	}{{"failures", f.failures}, {"offline", f.offline}, {"flap", f.flap}} {
		if !(share.value >= 0 && share.value <= 1) { // not a number is neither
			return fmt.Errorf("--%s %v: a share is between 0 and 1", share.flag, share.value)
		}
	}
	if f.offline == 1 {
		return errors.New("--offline 1: somebody must be there")
	}
	return nil
}
