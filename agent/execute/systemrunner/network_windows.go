package systemrunner

import "chandler/agent/account/newcredentials"

func newNetLogOn() netLogOn { return newcredentials.Token }
