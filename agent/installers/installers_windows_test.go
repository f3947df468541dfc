package installers

import (
	"runtime"
	"testing"

	"golang.org/x/sys/windows"
)

func TestWindowsInstallerIsBusyWhileItsMutexIsHeld(t *testing.T) {
	if holder, err := LockHolder(Msiexec); holder != "" || err != nil {
		t.Fatalf("where nothing was installed: %q, %v", holder, err)
	}
	name, err := windows.UTF16PtrFromString(executing)
	if err != nil {
		t.Fatal(err)
	}
	held, over, gone := make(chan error), make(chan struct{}), make(chan error)
	go func() { // a thread of its own holds it, as another process would
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		mutex, err := windows.CreateMutex(nil, true, name)
		held <- err
		if err != nil {
			return
		}
		<-over
		gone <- windows.ReleaseMutex(mutex) // not closed: it stays, free
	}()
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	if holder, err := LockHolder(Msiexec); holder == "" || err != nil {
		t.Errorf("while it is held: %q, %v", holder, err)
	}
	if holder, err := LockHolder(Dpkg); holder != "" || err != nil {
		t.Errorf("another installer: %q, %v", holder, err)
	}
	close(over)
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	for range 2 { // looking does not keep it
		if holder, err := LockHolder(Msiexec); holder != "" || err != nil {
			t.Errorf("after it was released: %q, %v", holder, err)
		}
	}
}
