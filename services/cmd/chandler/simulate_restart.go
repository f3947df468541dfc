package main

import "context"

// restartAmid ends the broker's process while jobs are under way, and starts another on the same data and address.
func (s *simulation) restartAmid(ctx, running context.Context, _ *rawBroker) error {
	before, err := s.awaitWork(running, underWay)
	if err != nil {
		return err
	}
	down := s.now()
	if err := s.endBroker(!s.graceful); err != nil {
		return err
	}
	s.step("the broker has ended")
	if err := s.resumeBroker(ctx); err != nil {
		return err
	}
	up := s.now()
	s.result.returned = &returned{Down: up.Sub(down).Seconds()}
	s.step("the broker is there again, after %.1f s", s.result.Down)
	// Agents behind a leaf node stay connected to it.
	return s.comeBack(ctx, running, before, up, len(s.leaves) == 0)
}

// endBroker ends the broker's process: at once, or in order.
func (s *simulation) endBroker(kill bool) error {
	s.meters.broker.leave()
	if kill {
		return s.broker.kill()
	}
	return s.broker.stop()
}

// resumeBroker starts it again.
func (s *simulation) resumeBroker(ctx context.Context) error {
	if _, err := s.startBroker(ctx); err != nil {
		return err
	}
	return s.meters.broker.enter(s.broker)
}
