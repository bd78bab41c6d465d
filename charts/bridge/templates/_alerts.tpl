{{/* The groups of alerts; docs/operations.md says what each means and what to do. */}}
{{- define "bridge.alertGroups" -}}
{{- $in := printf "namespace=%q" .Release.Namespace -}}
{{- $sweep := ceil (maxf 30.0 (mulf 3.0 (float64 .Values.github.sweepMinutes))) | int -}}
- name: bridge
  rules:
    - alert: BridgeDeliveriesNotStored
      expr: sum(rate(bridge_events_total{ {{- $in }}, answer=~"not_stored|failed"}[5m])) > 0
      for: 10m
      labels: {severity: critical}
      annotations:
        summary: The gateway cannot store deliveries.
        description: Their senders were told to send again; GitHub does not by itself, and is asked for them later.
    - alert: BridgeDeliveriesNotVerified
      expr: sum(rate(bridge_events_total{ {{- $in }}, answer="not_verified"}[15m])) > 0
      for: 1h
      labels: {severity: warning}
      annotations:
        summary: Deliveries come whose signature nobody's secret made.
        description: A webhook has another secret than its project, or is of a repository that has no project.
    - alert: BridgeGatewaySlow
      expr: histogram_quantile(0.99, sum by (le) (rate(bridge_event_seconds_bucket{ {{- $in }}}[10m]))) > 5
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: The gateway takes seconds to answer deliveries.
        description: GitHub gives up after 10 s, and the delivery counts as failed there.
    - alert: BridgeDeliveriesLost
      expr: max(bridge_deliveries_lost{ {{- $in }}}) > 0
      for: 1h
      labels: {severity: warning}
      annotations:
        summary: Deliveries that GitHub could not get rid of have not come in again.
        description: They are asked for again; the gateway is away for them, or answers 5xx.
    - alert: BridgeDeliveriesExpired
      expr: sum(increase(bridge_deliveries_expired_total{ {{- $in }}}[1h])) > 0
      labels: {severity: critical}
      annotations:
        summary: Deliveries are lost for good.
        description: GitHub sends nothing again after three days. The controller's log has their GUIDs.
    {{- if gt (float64 .Values.github.sweepMinutes) 0.0 }}
    - alert: BridgeSweepsStandStill
      expr: sum(increase(bridge_delivery_sweeps_total{ {{- $in }}}[{{ $sweep }}m])) == 0
      for: {{ $sweep }}m
      labels: {severity: warning}
      annotations:
        summary: Nobody looks through GitHub's logs for deliveries that were missed.
        description: The controller that leads is stuck there, or none leads.
    {{- end }}
    - alert: BridgeNobodyLeads
      expr: (max(bridge_leading{ {{- $in }}}) or vector(0)) < 1
      for: 5m
      labels: {severity: critical}
      annotations:
        summary: No controller holds the Lease.
        description: Deliveries are stored and nothing is done about them. See the logs of the controllers.
    - alert: BridgeControllerStuck
      expr: (sum(bridge_open_runs{ {{- $in }}}) > 0) unless (sum(increase(bridge_looks_total{ {{- $in }}}[10m])) > 0)
      for: 10m
      labels: {severity: critical}
      annotations:
        summary: There are open runs, and nobody looks at them.
        description: See the logs of the controllers.
    - alert: BridgeStatusOverdue
      expr: max(bridge_overdue_seconds{ {{- $in }}}) > 60
      for: 5m
      labels: {severity: critical}
      annotations:
        summary: A commit still shows pending though its run has ended, or should have.
        description: GitHub does not take its status, or the run cannot be made to end.
    - alert: BridgeOldestPending
      expr: max(bridge_oldest_pending_seconds{ {{- $in }}}) > {{ mulf 3600.0 (float64 .Values.metrics.pendingHours) | int64 }}
      for: 5m
      labels: {severity: warning}
      annotations:
        summary: A commit has shown pending for more than {{ .Values.metrics.pendingHours }} hours.
        description: Its run goes on within its own timeout; look what it waits for.
    - alert: BridgeActionsNotDone
      expr: sum by (kind) (bridge_owed_actions{ {{- $in }}}) > 0 unless sum by (kind) (increase(bridge_actions_total{ {{- $in }}}[15m])) > 0
      for: 15m
      labels: {severity: warning}
      annotations:
        summary: {{ `Actions of the kind {{ $labels.kind }} are owed and none can be done.` }}
        description: The controller's log says what refuses them.
    - alert: BridgeStatusesGivenUp
      expr: sum(increase(bridge_statuses_total{ {{- $in }}, result="given_up"}[1h])) > 0
      labels: {severity: warning}
      annotations:
        summary: GitHub refuses statuses for good.
        description: Each run says why; 404, 410, 422, or somebody else writes to the same context.
    - alert: BridgeStatusesNotTaken
      expr: sum(increase(bridge_statuses_total{ {{- $in }}, result="failed"}[15m])) > 0 unless sum(increase(bridge_statuses_total{ {{- $in }}, result="taken"}[15m])) > 0
      for: 15m
      labels: {severity: critical}
      annotations:
        summary: GitHub takes no status at all.
        description: It is away, or refuses the credentials.
    - alert: BridgeStatusesPutOff
      expr: sum(increase(bridge_statuses_total{ {{- $in }}, result="put_off"}[15m])) > 0
      for: 30m
      labels: {severity: warning}
      annotations:
        summary: GitHub's rate limits keep statuses waiting.
        description: Final ones go first, pending ones come late.
    - alert: BridgeBrokenRecords
      expr: max(bridge_broken_records{ {{- $in }}}) > 0
      for: 10m
      labels: {severity: critical}
      annotations:
        summary: A record cannot be read and is left alone.
        description: Its commit gets no status any more. The controllers' logs say which and why.
    - alert: BridgeSetAside
      expr: max by (__name__) ({__name__=~"bridge_broken_pipelines|bridge_broken_projects", {{ $in }}}) > 0
      for: 30m
      labels: {severity: warning}
      annotations:
        summary: A pipeline or project cannot be read and is left out.
        description: The controllers' logs say which and why.
{{- end }}
