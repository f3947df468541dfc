package scheduling

import (
	"chandler/events"
	"chandler/events/bus"
)

// serviceName in subjects, sources and among the broker's services.
const serviceName = "scheduling"

// endpoints answers every request of events/call_scheduling.go.
func (s *Service) endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		bus.Answer(events.CollectionSet, s.collectionSet),
		bus.Answer(events.CollectionList, s.collectionList),
		bus.Answer(events.CollectionShow, s.collectionShow),
		bus.Answer(events.CollectionPreview, s.collectionPreview),
		bus.Answer(events.CollectionRemove, s.collectionRemove),
		bus.Answer(events.DeploymentCreate, s.deploymentCreate),
		bus.Answer(events.DeploymentSign, s.deploymentSign),
		bus.Answer(events.DeploymentDraft, s.deploymentDraft),
		bus.Answer(events.DeploymentList, s.deploymentList),
		bus.Answer(events.DeploymentShow, s.deploymentShow),
		bus.Answer(events.DeploymentPause, s.deploymentPause),
		bus.Answer(events.DeploymentResume, s.deploymentResume),
		bus.Answer(events.DeploymentApprove, s.deploymentApprove),
		bus.Answer(events.DeploymentSkip, s.deploymentSkip),
		bus.Answer(events.DeploymentRollback, s.deploymentRollback),
		bus.Answer(events.DeploymentPlan, s.deploymentPlan),
		bus.Answer(events.DeploymentRemove, s.deploymentRemove),
		bus.Answer(events.GateSignal, s.gateSignal),
		bus.Answer(events.LimitsShow, s.limitsShow),
		bus.Answer(events.LimitsSet, s.limitsSet),
		bus.Answer(events.Reconcile, s.tellAgain),
		bus.Answer(events.AgentList, s.agentList),
		bus.Answer(events.Why, s.why),
	}
}
