//go:build !linux

package faultfs

import "time"

// FS is a mounted file system.
type FS struct{}

func possible() error { return ErrImpossible }

// Mount mounts.
func Mount(Options) (*FS, error) { return nil, ErrImpossible }

// Close unmounts.
func (f *FS) Close() error { return nil }

// Slow makes every write and every fsync take so much longer.
func (f *FS) Slow(write, sync time.Duration) {}

// Full leaves so many bytes free, negative: no limit.
func (f *FS) Full(left int64) {}

// Fail makes operations of these kinds fail.
func (f *FS) Fail(ops Op) {}

// Sync is sync(2).
func (f *FS) Sync() error { return ErrImpossible }

// Cut copies what a power cut leaves.
func (f *FS) Cut(to string) error { return ErrImpossible }

// CutKeeping is Cut that keeps more.
func (f *FS) CutKeeping(to string, seed uint64) error { return ErrImpossible }
