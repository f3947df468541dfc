package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

func ensure(_ context.Context, name string, _ Options) (Account, bool, error) {
	sid, created, err := ensureSAM(machine{}, name)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		err = &CannotMake{Name: name, Why: "the agent does not run as SYSTEM"}
	}
	if err != nil {
		return Account{}, created, err
	}
	computer, err := windows.ComputerName()
	if err != nil {
		return Account{}, created, err
	}
	return Account{Name: computer + `\` + name, SID: sid, Local: true}, created, nil
}

func logOn(made Account) (uint64, func(), error) {
	token, err := freshLogOn(machine{}, userPart(made.Name))
	return uint64(token), func() { machine{}.Close(token) }, err
}

func logOnWith(user string, secret []byte) (uint64, func(), error) {
	wide := wideSecret(secret)
	defer clear(wide)
	domain, name := SplitUser(user)
	token, err := machine{}.LogOn(domain, name, wide)
	if err != nil {
		return 0, nil, fmt.Errorf("log on user %s: %w", user, err)
	}
	return uint64(token), func() { machine{}.Close(token) }, nil
}

// machine is the sam of this machine.
type machine struct{}

// What the functions of netapi32 are told and answer, as lmaccess.h and lmerr.h have it.
const (
	levelUserAdd      = 1
	levelUserFull     = 3
	levelPassword     = 1003
	levelFlags        = 1008
	privilegeUser     = 1
	flagScript        = 0x1
	flagNormal        = 0x200
	flagNeverExpires  = 0x10000 // its password
	includeIndirect   = 1
	maximumLength     = 1<<32 - 1
	nerrUserNotFound  = syscall.Errno(2221)
	logonTypeBatch    = 4
	logonProvider     = 0
	policyCreateNames = 0x810 // POLICY_CREATE_ACCOUNT | POLICY_LOOKUP_NAMES
)

type userAdd struct {
	name, password *uint16
	passwordAge    uint32
	privilege      uint32
	homeDir        *uint16
	comment        *uint16
	flags          uint32
	scriptPath     *uint16
}

// userFull begins as USER_INFO_3 does; the rest is not read.
type userFull struct {
	name, password       *uint16
	passwordAge          uint32
	privilege            uint32
	homeDir              *uint16
	comment              *uint16
	flags                uint32
	scriptPath           *uint16
	authFlags            uint32
	fullName, userNote   *uint16
	parameters, stations *uint16
	lastOn, lastOff      uint32
	expires              uint32
}

func (machine) Find(name string) (samUser, error) {
	user, err := userInfo(name)
	if err != nil {
		return samUser{}, err
	}
	computer, err := windows.ComputerName()
	if err != nil {
		return samUser{}, err
	}
	sid, _, _, err := windows.LookupSID("", computer+`\`+name)
	if err != nil {
		return samUser{}, err
	}
	user.sid = sid.String()
	groups, err := localGroups(name)
	for _, group := range groups {
		sid, _, _, err := windows.LookupSID("", `BUILTIN\`+group)
		if err != nil {
			sid, _, _, err = windows.LookupSID("", computer+`\`+group)
		}
		if err != nil {
			return samUser{}, fmt.Errorf("group %s: %w", group, err)
		}
		user.groups = append(user.groups, sid.String())
	}
	return user, err
}

func (machine) Add(name, comment string, secret []uint16) error {
	wideName, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	wideComment, err := windows.UTF16PtrFromString(comment)
	if err != nil {
		return err
	}
	info := userAdd{name: wideName, password: &secret[0], privilege: privilegeUser, comment: wideComment,
		flags: flagScript | flagNormal | flagDisabled | flagNeverExpires}
	return netapi("NetUserAdd", 0, levelUserAdd, uintptr(unsafe.Pointer(&info)), 0)
}

func (machine) SetSecret(name string, secret []uint16) error {
	password := &secret[0]
	return setUser(name, levelPassword, unsafe.Pointer(&password))
}

func (machine) SetDisabled(name string, disabled bool) error {
	flags := uint32(flagScript | flagNormal | flagNeverExpires)
	if disabled {
		flags |= flagDisabled
	}
	return setUser(name, levelFlags, unsafe.Pointer(&flags))
}

func setUser(name string, level uintptr, info unsafe.Pointer) error {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	return netapi("NetUserSetInfo", 0, uintptr(unsafe.Pointer(wide)), level, uintptr(info), 0)
}

func (machine) JoinUsers(sid string) error {
	group, err := groupName(windows.WinBuiltinUsersSid)
	if err != nil {
		return err
	}
	wide, err := windows.UTF16PtrFromString(group)
	if err != nil {
		return err
	}
	member, err := windows.StringToSid(sid)
	if err != nil {
		return err
	}
	err = netapi("NetLocalGroupAddMembers", 0, uintptr(unsafe.Pointer(wide)), 0, uintptr(unsafe.Pointer(&member)), 1)
	if errors.Is(err, windows.ERROR_MEMBER_IN_ALIAS) {
		return nil
	}
	return err
}

func (machine) LogOn(domain, name string, secret []uint16) (uintptr, error) {
	wideName, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	var wideDomain *uint16
	if domain != "" {
		if wideDomain, err = windows.UTF16PtrFromString(domain); err != nil {
			return 0, err
		}
	}
	var token windows.Token
	proc := windows.NewLazySystemDLL("advapi32.dll").NewProc("LogonUserW")
	done, _, err := proc.Call(uintptr(unsafe.Pointer(wideName)), uintptr(unsafe.Pointer(wideDomain)), uintptr(unsafe.Pointer(&secret[0])),
		logonTypeBatch, logonProvider, uintptr(unsafe.Pointer(&token)))
	if done == 0 {
		return 0, err
	}
	return uintptr(token), nil
}

func (machine) Close(token uintptr) error { return windows.CloseHandle(windows.Handle(token)) }

// netapi calls a function of netapi32 whose result is an error number.
//
//go:uintptrescapes
func netapi(name string, args ...uintptr) error {
	proc := windows.NewLazySystemDLL("netapi32.dll").NewProc(name)
	if err := proc.Find(); err != nil {
		return err
	}
	if code, _, _ := proc.Call(args...); code != 0 {
		if syscall.Errno(code) == nerrUserNotFound {
			return ErrNotFound
		}
		return fmt.Errorf("%s: %w", name, syscall.Errno(code))
	}
	return nil
}

func userInfo(name string) (samUser, error) {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return samUser{}, err
	}
	var buffer *byte
	if err := windows.NetUserGetInfo(nil, wide, levelUserFull, &buffer); err != nil {
		if errors.Is(err, nerrUserNotFound) {
			return samUser{}, ErrNotFound
		}
		return samUser{}, err
	}
	defer windows.NetApiBufferFree(buffer)
	info := (*userFull)(unsafe.Pointer(buffer))
	return samUser{comment: windows.UTF16PtrToString(info.comment), flags: info.flags, expires: info.expires}, nil
}

// localGroups are those that the user is in, by other groups too.
func localGroups(user string) ([]string, error) {
	wide, err := windows.UTF16PtrFromString(user)
	if err != nil {
		return nil, err
	}
	var buffer *byte
	var read, total uint32
	err = netapi("NetUserGetLocalGroups", 0, uintptr(unsafe.Pointer(wide)), 0, includeIndirect, uintptr(unsafe.Pointer(&buffer)),
		maximumLength, uintptr(unsafe.Pointer(&read)), uintptr(unsafe.Pointer(&total)))
	if err != nil {
		return nil, err
	}
	if buffer == nil {
		return nil, nil
	}
	defer windows.NetApiBufferFree(buffer)
	var groups []string
	for _, name := range unsafe.Slice((**uint16)(unsafe.Pointer(buffer)), read) {
		groups = append(groups, windows.UTF16PtrToString(name))
	}
	return groups, nil
}

// groupName is what this machine's language calls a well-known group.
func groupName(kind windows.WELL_KNOWN_SID_TYPE) (string, error) {
	sid, err := windows.CreateWellKnownSid(kind)
	if err != nil {
		return "", err
	}
	name, _, _, err := sid.LookupAccount("")
	return name, err
}

// lsaObject is LSA_OBJECT_ATTRIBUTES, all zero but for its length.
type lsaObject struct {
	length     uint32
	root       windows.Handle
	name       *windows.NTUnicodeString
	attributes uint32
	descriptor uintptr
	quality    uintptr
}

// Entitle adds rights in the local security policy.
func (machine) Entitle(sid string, rights []string) error {
	member, err := windows.StringToSid(sid)
	if err != nil {
		return err
	}
	names := make([]windows.NTUnicodeString, len(rights))
	for i, right := range rights {
		name, err := windows.NewNTUnicodeString(right)
		if err != nil {
			return err
		}
		names[i] = *name
	}
	object := lsaObject{length: uint32(unsafe.Sizeof(lsaObject{}))}
	var policy windows.Handle
	if err := lsa("LsaOpenPolicy", 0, uintptr(unsafe.Pointer(&object)), policyCreateNames, uintptr(unsafe.Pointer(&policy))); err != nil {
		return err
	}
	defer lsa("LsaClose", uintptr(policy))
	err = lsa("LsaAddAccountRights", uintptr(policy), uintptr(unsafe.Pointer(member)), uintptr(unsafe.Pointer(&names[0])), uintptr(len(names)))
	if err != nil {
		return fmt.Errorf("give %s: %w", strings.Join(rights, ", "), err)
	}
	return nil
}

// lsa calls a function of advapi32 whose result is an NTSTATUS.
//
//go:uintptrescapes
func lsa(name string, args ...uintptr) error {
	proc := windows.NewLazySystemDLL("advapi32.dll").NewProc(name)
	if err := proc.Find(); err != nil {
		return err
	}
	if status, _, _ := proc.Call(args...); status != 0 {
		return fmt.Errorf("%s: %w", name, windows.NTStatus(status))
	}
	return nil
}
