package nats_test

import (
	"crypto/tls"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"chandler/events"
	"chandler/events/access"
)

func TestTheConfigurationHoldsWhatIsDeclared(t *testing.T) {
	o := deployed(t, newFleet(t, 0))
	var total, largest int64
	for _, s := range events.Streams() {
		total += s.MaxBytes
		largest = max(largest, int64(s.MaxMsgSize))
	}
	if o.JetStreamMaxStore < total {
		t.Errorf("max_file_store is %d bytes, the streams reserve %d: they could not be made", o.JetStreamMaxStore, total)
	}
	if int64(o.MaxPayload) < largest {
		t.Errorf("max_payload is %d bytes, streams take messages of %d", o.MaxPayload, largest)
	}
	if !o.JetStream || o.SyncInterval != 10*time.Second || o.SyncAlways {
		t.Errorf("JetStream %t, synced every %s (always: %t); want every 10 s, as the comment explains", o.JetStream, o.SyncInterval, o.SyncAlways)
	}
	if o.JetStreamLimits.DefaultMaxConsumers != 1000 || o.MaxConn != 50_000 {
		t.Errorf("limits are %d consumers and %d connections", o.JetStreamLimits.DefaultMaxConsumers, o.MaxConn)
	}
}

func TestTheConfigurationLetsInOnlyUsersOfTheFleet(t *testing.T) {
	f := newFleet(t, 0)
	o := deployed(t, f)
	if len(o.TrustedOperators) != 1 || o.SystemAccount != f.public[access.System] {
		t.Errorf("%d operators, system account %q", len(o.TrustedOperators), o.SystemAccount)
	}
	if _, ok := o.AccountResolver.(*natsserver.DirAccResolver); !ok {
		t.Errorf("accounts are kept by a %T, want one that takes changes and keeps them", o.AccountResolver)
	}
	if o.TLSConfig == nil || o.TLSConfig.MinVersion != tls.VersionTLS13 || o.AllowNonTLS {
		t.Errorf("TLS is %+v, clear text is taken: %t", o.TLSConfig, o.AllowNonTLS)
	}
	if o.TLSTimeout != 10 || o.TLSRateLimit != 500 {
		t.Errorf("a handshake may take %g s, %d connections come in a second", o.TLSTimeout, o.TLSRateLimit)
	}
	if o.HTTPHost != "127.0.0.1" {
		t.Errorf("monitoring, which asks nobody who he is, listens on %q", o.HTTPHost)
	}
}

// deployed is the configuration with a fleet's files.
func deployed(t *testing.T, f *fleet) *natsserver.Options {
	t.Helper()
	o, err := natsserver.ProcessConfigFile(f.config(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.AccountResolver.Close)
	return o
}
