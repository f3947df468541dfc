package rehearsal

import (
	"time"

	"chandler/events"
)

// Timeline is what would happen.
type Timeline struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"` // when the last thing happened that was played
	// Done is when all machines of the last phase had ended; zero: not within the time played.
	Done   time.Time    `json:"done,omitzero"`
	Phases []Phase      `json:"phases"`
	Agents []AgentStory `json:"agents,omitempty"` // of the target, in the order of the fleet
	// Totals counts the agents by where they are in the end: a state, or [NotReleased]. Each agent is in one.
	Totals map[events.State]int `json:"totals"`
	Hours  []Hour               `json:"hours"`
	Sites  []SiteHour           `json:"sites"` // by site and hour, where something is downloaded
	Never  []Never              `json:"never"` // the most first
	// Identity counts the machines that would fail for want of an identity or account on the network.
	Identity map[events.Reason]int `json:"identity,omitempty"`
	Retries  int                   `json:"retries,omitempty"`
	Most     int                   `json:"most_in_flight"` // just after a release
	Outside  int                   `json:"outside"`        // machines of the fleet that are not in the target
	Faults   int                   `json:"faults,omitempty"`
	Fault    string                `json:"fault,omitempty"` // the first fact on which the target's expression cannot be evaluated
	// RolledBack is on how many machines the program had started when a halt took the deployment back (on-halt: rollback).
	RolledBack int `json:"rolled_back,omitempty"`
	// Ended says why the play ended before its time; "": it did not.
	Ended    string   `json:"ended,omitempty"`
	Supposes []string `json:"supposes"` // sentences
}

// NotReleased is where agents are whose turn did not come.
const NotReleased events.State = "not_released"

// Phase is how one went. A rollout without phases is one phase without a name.
type Phase struct {
	Name     string            `json:"name"`
	Opened   time.Time         `json:"opened,omitzero"`
	Size     int               `json:"size"`
	Released int               `json:"released"`
	Met      time.Time         `json:"met,omitzero"`  // since when the success gate is met, or was when the next phase opened
	Left     time.Time         `json:"left,omitzero"` // when the next one opened, or the last one was done
	Halts    []Halt            `json:"halts,omitempty"`
	Says     string            `json:"says,omitempty"` // what it waits for in the end
	Counts   events.WaveCounts `json:"counts"`         // in the end
}

// Halt of a rollout by a bad gate.
type Halt struct {
	At      time.Time         `json:"at"`
	Says    string            `json:"says"`
	Met     time.Time         `json:"met,omitzero"` // since when the success gate had been met, which the halt ended
	Resumed time.Time         `json:"resumed,omitzero"`
	Counts  events.WaveCounts `json:"counts"` // of the phase, then
}

// AgentStory is what happens to one machine. Of a deployment that recurs it is of the newest occurrence; Runs counts all.
type AgentStory struct {
	Agent   string            `json:"agent"`
	Host    string            `json:"host"`
	Site    string            `json:"site,omitempty"`
	Phase   int               `json:"phase"` // index; -1: none that opened
	Offered time.Time         `json:"offered,omitzero"`
	Started time.Time         `json:"started,omitzero"`
	Ended   time.Time         `json:"ended,omitzero"`
	State   events.State      `json:"state"`
	Reason  events.Reason     `json:"reason,omitempty"`
	Waits   events.WaitingFor `json:"waits,omitempty"` // in the end
	Runs    int               `json:"runs,omitempty"`
	Never   string            `json:"never,omitempty"` // why nothing ran
}

// Hour counts what happens within one.
type Hour struct {
	At        time.Time `json:"at"`
	Offered   int       `json:"offered,omitempty"`
	Started   int       `json:"started,omitempty"`
	Succeeded int       `json:"succeeded,omitempty"`
	Failed    int       `json:"failed,omitempty"`
	Bytes     int64     `json:"bytes,omitempty"`
}

// SiteHour is what a site downloads within an hour.
type SiteHour struct {
	Site  string    `json:"site"`
	At    time.Time `json:"at"`
	Bytes int64     `json:"bytes"`
}

// Never is why nothing runs on some machines.
type Never struct {
	Why    string   `json:"why"`
	Agents int      `json:"agents"`
	Hosts  []string `json:"hosts"` // the first of them
}
