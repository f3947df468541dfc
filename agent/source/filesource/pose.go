package filesource

import (
	"fmt"
	"os"
	"runtime"

	"chandler/agent/account"
	"chandler/agent/source"
	"chandler/events"
)

// posing opens files of shares as somebody else.
type posing struct {
	system
	token func(user, domain string, secret []byte) (token uint64, done func(), err error)
}

// check refuses a login that nobody could be by.
func check(login source.Login) error {
	_, name := login.Domain()
	switch {
	case login.Method != "" && login.Method != events.ByPassword:
		return unsupported("a share knows accounts by their passwords only")
	case name == "" || len(login.Secret) == 0:
		return &source.Error{Reason: events.CredentialRejected, Answer: source.Answer("the account has no user or no secret; it was not tried", source.LogonRefused)}
	}
	return nil
}

// opener makes the token before it returns, while the secret is there.
func (p posing) opener(name string, login source.Login) func() (*os.File, error) {
	domain, user := account.SplitUser(login.User)
	token, done, err := p.token(user, domain, login.Secret)
	if err != nil {
		return func() (*os.File, error) {
			return nil, unsupported(fmt.Sprintf("this machine gives no logon for the network: %v", err))
		}
	}
	return func() (*os.File, error) {
		defer done()
		return p.open(name, token)
	}
}

// open poses as the user of the token on a thread that nobody else has meanwhile. A thread that stays somebody else ends
// with its goroutine.
func (p posing) open(name string, token uint64) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	answer := make(chan opened)
	go func() {
		runtime.LockOSThread()
		if err := p.Pose(token); err != nil {
			runtime.UnlockOSThread()
			answer <- opened{nil, err}
			return
		}
		file, err := p.Open(name)
		if p.Revert() == nil {
			runtime.UnlockOSThread()
		}
		answer <- opened{file, err}
	}()
	o := <-answer
	return o.file, o.err
}
