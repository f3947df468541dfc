package logon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// System asks the terminal services, which know every session of the machine.
func System() Driver { return terminalServices{} }

type terminalServices struct{}

// Classes of WTSQuerySessionInformation.
const (
	wtsUserName   = 5
	wtsDomainName = 7
	wtsProtocol   = 16 // a uint16
	wtsInfo       = 24 // a sessionInfo
)

const rdpProtocol = 2

// sessionInfo is WTSINFOW.
type sessionInfo struct {
	State, SessionID                                          uint32
	Counters                                                  [6]uint32
	WinStation                                                [32]uint16
	Domain                                                    [17]uint16
	User                                                      [21]uint16
	Connected, Disconnected, LastInput, LoggedOn, CurrentTime int64 // 100 ns since 1601
}

func (terminalServices) List(context.Context) ([]Session, error) {
	var first *windows.WTS_SESSION_INFO
	var count uint32
	if err := windows.WTSEnumerateSessions(0, 0, 1, &first, &count); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(first)))
	var sessions []Session
	for _, one := range unsafe.Slice(first, count) {
		if one.State != windows.WTSActive && one.State != windows.WTSDisconnected {
			continue // nobody is logged on there yet, or it listens for others
		}
		s, err := look(one.SessionID)
		if isGone(err) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look at session %d: %w", one.SessionID, err)
		}
		if s.User == "" {
			continue // the services' own, or the logon screen
		}
		s.Active = one.State == windows.WTSActive
		sessions = append(sessions, s)
	}
	return sessions, nil
}

// isGone says that there is no such session any more.
func isGone(err error) bool {
	return errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || errors.Is(err, windows.ERROR_CTX_WINSTATION_NOT_FOUND)
}

func look(number uint32) (Session, error) {
	s := Session{ID: strconv.FormatUint(uint64(number), 10), Number: number, Type: "console"}
	user, err := query(number, wtsUserName)
	if err != nil {
		return s, err
	}
	domain, err := query(number, wtsDomainName)
	if err != nil {
		return s, err
	}
	if name := windows.UTF16ToString(user); name != "" {
		s.User = windows.UTF16ToString(domain) + `\` + name
	}
	protocol, err := query(number, wtsProtocol)
	if err != nil {
		return s, err
	}
	if len(protocol) > 0 && protocol[0] == rdpProtocol {
		s.Type, s.Remote = "rdp", true
	}
	if number == windows.WTSGetActiveConsoleSessionId() {
		s.Seat = "seat0"
	}
	info, err := query(number, wtsInfo)
	if err != nil {
		return s, err
	}
	if uintptr(len(info))*2 < unsafe.Sizeof(sessionInfo{}) {
		return s, fmt.Errorf("its information has %d bytes", len(info)*2)
	}
	if at := (*sessionInfo)(unsafe.Pointer(&info[0])).LoggedOn; at != 0 {
		since := windows.Filetime{LowDateTime: uint32(at), HighDateTime: uint32(at >> 32)}
		s.Since = time.Unix(0, since.Nanoseconds()).UTC()
	}
	return s, nil
}

// query gives a copy of what the terminal services say, aligned for any of their structures.
func query(number uint32, class uintptr) ([]uint16, error) {
	var data *uint16
	var size uint32
	done, _, err := windows.NewLazySystemDLL("wtsapi32.dll").NewProc("WTSQuerySessionInformationW").Call(
		0, uintptr(number), class, uintptr(unsafe.Pointer(&data)), uintptr(unsafe.Pointer(&size)))
	if done == 0 {
		return nil, err
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(data)))
	aligned := make([]uint64, (size+7)/8)
	if size < 2 {
		return nil, nil
	}
	answer := unsafe.Slice((*uint16)(unsafe.Pointer(&aligned[0])), size/2)
	copy(answer, unsafe.Slice(data, size/2))
	return answer, nil
}

// Watch has nobody to listen to: notices about sessions go to windows and to the service's own handler.
func (terminalServices) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// LogOff does not wait for the end: programs are asked first.
func (terminalServices) LogOff(_ context.Context, session Session) error {
	done, _, err := windows.NewLazySystemDLL("wtsapi32.dll").NewProc("WTSLogoffSession").Call(0, uintptr(session.Number), 0)
	if done == 0 && !isGone(err) {
		return err
	}
	return nil
}
