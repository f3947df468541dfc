package events

import "time"

// Generation tells one life of a stream from the next: another creation time, or a last sequence that
// went back (a restored copy, a truncated file), makes a new one.
type Generation struct {
	Created int64 `json:"created"` // Unix nanoseconds
	Counter int   `json:"counter"`
}

// BeaconNote goes to all agents every minute and at once when a freeze changes, on core NATS.
type BeaconNote struct {
	Jobs    Generation `json:"jobs"`
	Status  Generation `json:"status"`
	Freezes []Freeze   `json:"freezes,omitempty"`
	At      time.Time  `json:"at"`
}

// BeaconInterval is the time between beacons; an agent that has heard none for twice as long asks.
const BeaconInterval = 60 * time.Second

// Freeze forbids the start of programs in its scope until it is lifted.
type Freeze struct {
	ID         string      `json:"id"`    // "fleet", "collection-<name>", "site-<name>" or "deployment-<name>"
	Scope      string      `json:"scope"` // fleet, collection, site, or deployment: one whose rollout is halted
	Name       string      `json:"name,omitempty"`
	Collection *Collection `json:"collection,omitempty"` // its definition when the freeze was set: agents evaluate it themselves
	Revision   uint64      `json:"revision,omitempty"`   // of a deployment: this one and all before it
	By         string      `json:"by"`
	Why        string      `json:"why,omitempty"`
	At         time.Time   `json:"at"`
}

// TimerNote is what a timer of the broker says when it is due. The handler looks at the present state
// before it acts: a timer only wakes.
type TimerNote struct {
	Service string    `json:"service"`
	Purpose string    `json:"purpose"` // start, expire, bake, retry
	Name    string    `json:"name"`    // the deployment
	Key     string    `json:"key,omitempty"`
	Due     time.Time `json:"due"`
}

// Events of control.
var (
	Beacon = declare("beacon", "", "beacon", "execution", "the streams' generations and what is frozen; not stored",
		BeaconNote{Jobs: Generation{Created: exampleTime.UnixNano()}, Status: Generation{Created: exampleTime.UnixNano()}, At: exampleTime})
	FreezeSet = declare("freeze.set", StreamEvents, "event.freeze.set.<freeze>", "execution", "programs in this scope are not started until the freeze is lifted",
		Freeze{ID: "fleet", Scope: "fleet", By: "admin", Why: "change freeze", At: exampleTime})
	FreezeLifted = declare("freeze.lifted", StreamEvents, "event.freeze.lifted.<freeze>", "execution", "the freeze is over",
		Freeze{ID: "fleet", Scope: "fleet", By: "admin", At: exampleTime})
	TimerDue = declare("timer.due", StreamTimers, "due.<service>", "the broker", "a timer that a service set is due",
		TimerNote{Service: "scheduling", Purpose: "start", Name: "hello-everywhere", Due: exampleTime})
)
