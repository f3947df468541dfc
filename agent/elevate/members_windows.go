package elevate

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Answers of the account manager, from lmerr.h and winerror.h.
const (
	errMemberNotInAlias = windows.Errno(1377)
	errMemberInAlias    = windows.Errno(1378)
	errNoSuchMember     = windows.Errno(1387)
	errMoreData         = windows.Errno(234)
	preferredLength     = 64 << 10 // bytes of one part of the list
)

func newSystem(o Options) (system, error) {
	netapi := windows.NewLazySystemDLL("netapi32.dll")
	return newMembers(administrators{
		addMembers: netapi.NewProc("NetLocalGroupAddMembers"),
		delMembers: netapi.NewProc("NetLocalGroupDelMembers"),
		getMembers: netapi.NewProc("NetLocalGroupGetMembers"),
		free:       netapi.NewProc("NetApiBufferFree"),
	}, o.reached), nil
}

// administrators is the group S-1-5-32-544.
type administrators struct {
	addMembers, delMembers, getMembers, free *windows.LazyProc
}

// member is LOCALGROUP_MEMBERS_INFO_0.
type member struct{ sid *windows.SID }

func (a administrators) name() (string, error) {
	sid, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return "", err
	}
	name, _, _, err := sid.LookupAccount("")
	return name, err
}

func (a administrators) add(sid string) error {
	err := a.change(a.addMembers, sid)
	if errors.Is(err, errMemberInAlias) {
		return nil
	}
	return err
}

func (a administrators) remove(sid string) error {
	err := a.change(a.delMembers, sid)
	if errors.Is(err, errMemberNotInAlias) || errors.Is(err, errNoSuchMember) {
		return nil
	}
	return err
}

func (a administrators) change(proc *windows.LazyProc, sid string) error {
	group, err := a.groupName()
	if err != nil {
		return err
	}
	parsed, err := windows.StringToSid(sid)
	if err != nil {
		return fmt.Errorf("SID %q: %w", sid, err)
	}
	if err := proc.Find(); err != nil {
		return err
	}
	list := member{parsed}
	status, _, _ := proc.Call(0, uintptr(unsafe.Pointer(group)), 0, uintptr(unsafe.Pointer(&list)), 1)
	if status != 0 {
		return fmt.Errorf("%s: %w", proc.Name, windows.Errno(status))
	}
	return nil
}

func (a administrators) has(sid string) (bool, error) {
	group, err := a.groupName()
	if err != nil {
		return false, err
	}
	wanted, err := windows.StringToSid(sid)
	if err != nil {
		return false, fmt.Errorf("SID %q: %w", sid, err)
	}
	if err := a.getMembers.Find(); err != nil {
		return false, err
	}
	for resume := uintptr(0); ; {
		var list *member
		var read, total uint32
		status, _, _ := a.getMembers.Call(0, uintptr(unsafe.Pointer(group)), 0, uintptr(unsafe.Pointer(&list)), preferredLength,
			uintptr(unsafe.Pointer(&read)), uintptr(unsafe.Pointer(&total)), uintptr(unsafe.Pointer(&resume)))
		found := false
		if list != nil {
			for _, each := range unsafe.Slice(list, read) {
				found = found || each.sid.Equals(wanted)
			}
			a.free.Call(uintptr(unsafe.Pointer(list)))
		}
		switch {
		case found:
			return true, nil
		case status == 0:
			return false, nil
		case windows.Errno(status) != errMoreData:
			return false, fmt.Errorf("NetLocalGroupGetMembers: %w", windows.Errno(status))
		}
	}
}

func (a administrators) groupName() (*uint16, error) {
	name, err := a.name()
	if err != nil {
		return nil, err
	}
	return windows.UTF16PtrFromString(name)
}

// syncDirectory: NTFS keeps names in its journal.
func syncDirectory(string) error { return nil }
