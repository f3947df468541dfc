// Package restart restarts the machine, as its own system does it: services are stopped and users are logged off
// in their order.
//
// Under failure the machine goes on as it was, and the error holds the system's own words.
package restart

import (
	"context"
	"fmt"
	"time"
)

// limit is how long the system may take to accept; the restart itself comes afterwards.
const limit = time.Minute

// Machine asks the system for a restart. It returns when that was accepted. why is one line for whoever is logged on.
func Machine(ctx context.Context, why string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := restart(ctx, why); err != nil {
		return fmt.Errorf("restart the machine: %w", err)
	}
	return nil
}
