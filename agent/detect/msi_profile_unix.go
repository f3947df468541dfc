//go:build unix

package detect

func accountSIDs([]string) ([]string, error) { return nil, errNoMSI }

func registryKeyExists(string) (bool, error) { return false, errNoMSI }
