package agent

import "time"

// systemZone is the zone with which the process began: the service is restarted where the machine is set to another.
type systemZone struct{}

func newSystemZone() systemZone { return systemZone{} }

func (systemZone) location() *time.Location { return time.Local }
