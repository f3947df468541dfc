package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"chandler/agent/host"
	"chandler/events"
	"chandler/events/platform"
)

// ofPlatform refuses a program that is not for a machine as this one.
func (t *task) ofPlatform() error {
	if why := platform.Refuses(t.program.Platforms, t.facts); why != "" {
		return end(events.Rejected, events.PlatformUnsupported, "program %s is for other platforms: %s", t.part().Program, why)
	}
	return nil
}

// room makes sure that the disk has the space that the program asks for, and so much beside it: on the system's volume,
// and on that on which the program is laid out.
func (t *task) room(beside int64) error {
	needed := int64(t.program.DiskSpace)
	if needed == 0 {
		return nil
	}
	for _, volume := range []string{host.SystemVolume(), filepath.Dir(t.runDir())} {
		free, err := t.freeBytes(volume)
		if err != nil {
			return err
		}
		if free < needed+beside {
			e := &ending{events.Failed, events.DiskSpaceMissing, status{resource: volume, identity: "agent", answer: fmt.Sprintf("%d bytes are free", free)}}
			e.detail.explanation = fmt.Sprintf("program %s asks for %s free on %s, %d bytes with its content; %d bytes are", t.part().Program, t.program.DiskSpace, volume, needed+beside, free)
			return e
		}
	}
	return nil
}

// freeBytes asks for the volume that a directory is on, or will be on once it is made.
func (t *task) freeBytes(dir string) (int64, error) {
	for {
		_, err := os.Stat(dir)
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return t.a.FreeBytes(dir)
	}
}
