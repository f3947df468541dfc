package execute

import (
	"maps"
	"slices"

	"chandler/agent/supervise"
)

// Meaning is what an exit code says about the program's work (domain-facts.md §3.2).
type Meaning string

// The meanings.
const (
	Success    Meaning = "success"
	Failure    Meaning = "failure"
	SoftReboot Meaning = "soft-reboot" // success; a restart completes it, others may run before
	HardReboot Meaning = "hard-reboot" // success; a restart is under way, nothing else may run before
	Retry      Meaning = "retry"       // busy now: try again later
)

func (m Meaning) valid() bool {
	return slices.Contains([]Meaning{Success, Failure, SoftReboot, HardReboot, Retry}, m)
}

// DefaultReturnCodes is the table that a program's own codes are laid over. What is in neither is a Failure.
func DefaultReturnCodes() map[int]Meaning {
	return map[int]Meaning{0: Success, 1707: Success, 3010: SoftReboot, 3011: SoftReboot, 1641: HardReboot, 1618: Retry}
}

func merged(own map[int]Meaning) map[int]Meaning {
	table := DefaultReturnCodes()
	maps.Copy(table, own)
	return table
}

// meaningOf looks the exit code up in both ways of writing a 32-bit number: administrators know 0x80070005 as -2147024891
// and as 2147942405.
func meaningOf(outcome supervise.Outcome, table map[int]Meaning) Meaning {
	if !outcome.Started || outcome.Killed || outcome.StillRunning || outcome.Signal != "" {
		return Failure
	}
	for _, code := range []int{outcome.ExitCode, int(uint32(outcome.ExitCode))} {
		if meaning, found := table[code]; found {
			return meaning
		}
	}
	return Failure
}
