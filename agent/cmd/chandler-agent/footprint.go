package main

import (
	"context"
	"runtime/debug"
	"time"
)

// An agent is idle nearly always, on machines that are there for something else. What its start and its jobs needed is
// given back: the heap is kept small, and now and then free memory, and the pages of the program that nobody runs, go
// back to the system, which has them again as soon as they are wanted.
const (
	heapGrowth   = 50 // percent between two collections; the heap of an idle agent is a few MB
	settleTime   = 30 * time.Second
	giveBackTime = 5 * time.Minute
)

// staySmall gives memory back until ctx is done.
func staySmall(ctx context.Context) error {
	debug.SetGCPercent(heapGrowth)
	next := time.NewTimer(settleTime)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		debug.FreeOSMemory()
		dropProgramPages()
		next.Reset(giveBackTime)
	}
}
