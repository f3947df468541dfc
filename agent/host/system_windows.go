package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	gopsutil "github.com/shirou/gopsutil/v4/host"
	"golang.org/x/sys/windows"
)

func systemDomain(context.Context) (string, error) {
	var name [256]uint16
	n := uint32(len(name))
	if err := windows.GetComputerNameEx(windows.ComputerNamePhysicalDnsDomain, &name[0], &n); err != nil {
		return "", fmt.Errorf("domain of the computer name: %w", err)
	}
	return strings.ToLower(windows.UTF16ToString(name[:])), nil
}

// timeZone asks ICU, which is part of Windows and knows the IANA names.
func timeZone(context.Context) (string, error) {
	proc := windows.NewLazySystemDLL("icu.dll").NewProc("ucal_getDefaultTimeZone")
	if err := proc.Find(); err != nil {
		return "", err
	}
	var name [128]uint16
	var status int32 // positive: an error
	proc.Call(uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)), uintptr(unsafe.Pointer(&status)))
	if status > 0 {
		return "", fmt.Errorf("time zone: ICU says %d", status)
	}
	return windows.UTF16ToString(name[:len(name)-1]), nil
}

func machineMarks(ctx context.Context) ([]string, error) {
	id, err := gopsutil.HostIDWithContext(ctx)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, errors.New("the system does not say")
	}
	return []string{id}, nil
}

// timeOfDay is SYSTEM_TIMEOFDAY_INFORMATION.
type timeOfDay struct {
	BootTime, CurrentTime, TimeZoneBias int64
	TimeZoneID, Reserved                uint32
	BootTimeBias, SleepTimeBias         uint64
}

// bootID is the time of the boot as the clock was then: setting the clock moves
// BootTime and BootTimeBias alike.
func bootID(context.Context) (string, error) {
	var info timeOfDay
	err := windows.NtQuerySystemInformation(windows.SystemTimeOfDayInformation, unsafe.Pointer(&info), uint32(unsafe.Sizeof(info)), nil)
	if err != nil {
		return "", fmt.Errorf("time of the boot: %w", err)
	}
	return hashed("boot", strconv.FormatInt(info.BootTime-int64(info.BootTimeBias), 10)), nil
}
