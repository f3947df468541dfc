package smbsource

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cloudsoda/go-smb2"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/krberror"

	"chandler/agent/source"
	"chandler/events"
)

// Kerberos is where the process' own identity on the network is found. The zero value is what MIT's programs use.
type Kerberos struct {
	Config string // /etc/krb5.conf, or what KRB5_CONFIG names
	Cache  string // the file of tickets: what KRB5CCNAME names, or /tmp/krb5cc_UID
}

// maxCache is the size of a file of tickets.
const maxCache = 1 << 20

// ticket is the proof of whoever the process is. It is used for the one target, at which the server is met.
func (s *Source) ticket(t target) (proof, error) {
	cache, err := s.kerberos.cache()
	if err != nil {
		return proof{}, noTicket("the process has no ticket of Kerberos, and no account was lent", err)
	}
	cfg, err := config.Load(s.kerberos.config())
	if err != nil {
		return proof{}, noTicket("the machine is not set up for Kerberos, and no account was lent", err)
	}
	who := cache.GetClientPrincipalName().PrincipalNameString() + "@" + cache.GetClientRealm()
	return proof{
		key:  strings.Join([]string{t.at, "kerberos", who}, "\n"),
		wipe: func() {},
		initiator: func() (smb2.Initiator, error) {
			var krb *client.Client
			spn := "cifs/" + t.host
			err := guarded(func() (err error) {
				if krb, err = client.NewFromCCache(cache, cfg, client.DisablePAFXFAST(true)); err == nil {
					_, _, err = krb.GetServiceTicket(spn)
				}
				return err
			})
			if e, ok := errors.AsType[krberror.Krberror](err); ok && e.RootCause == krberror.NetworkingError {
				return nil, &source.Error{Reason: events.SourceUnreachable, Answer: source.Answer("no server of Kerberos answers", noLogonServers), Err: err}
			}
			if err != nil {
				return nil, noTicket("the ticket of "+who+" is not good for "+spn, err)
			}
			return &smb2.Krb5Initiator{Client: krb, TargetSPN: spn}, nil
		},
	}, nil
}

func noTicket(words string, err error) error {
	return &source.Error{Reason: events.NoNetworkIdentity, Answer: words, Err: err}
}

func (k Kerberos) config() string {
	switch env := os.Getenv("KRB5_CONFIG"); {
	case k.Config != "":
		return k.Config
	case env != "":
		return env
	}
	return "/etc/krb5.conf"
}

// cache reads the file of tickets. It must belong to the user the process is: others may write where it lies.
func (k Kerberos) cache() (*credentials.CCache, error) {
	name := k.Cache
	if name == "" {
		name = os.Getenv("KRB5CCNAME")
	}
	if name == "" {
		name = "/tmp/krb5cc_" + strconv.Itoa(os.Geteuid())
	}
	if kind, path, ok := strings.Cut(name, ":"); ok {
		if kind != "FILE" {
			return nil, fmt.Errorf("tickets in a %s are not read, only in a FILE", kind)
		}
		name = path
	}
	file, err := openOwn(name)
	if err != nil {
		return nil, fmt.Errorf("read tickets: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCache+1))
	if err != nil {
		return nil, fmt.Errorf("read tickets: %w", err)
	}
	return parseCache(data)
}
