"""Who may call what: each method names the least role it takes, and a method that stands nowhere is open to nobody.

Roles rank viewer < operator < worker < coordinator. A worker's token belongs to the cluster's own machines and counts as coordinator;
with certificates a worker cannot give another the coordinator's orders.
"""

from __future__ import annotations

from engine.service.options import Role

METHOD_ROLES: dict[str, Role] = {
    "/noodle.v1.Control/Register": Role.WORKER,
    "/noodle.v1.Control/Heartbeat": Role.WORKER,
    "/noodle.v1.Control/Leave": Role.WORKER,
    "/noodle.v1.Control/Report": Role.WORKER,
    "/noodle.v1.Control/Watch": Role.VIEWER,
    "/noodle.v1.Control/GetStatus": Role.VIEWER,
    "/noodle.v1.Control/PlanNow": Role.VIEWER,
    "/noodle.v1.Control/GetProblem": Role.VIEWER,
    "/noodle.v1.Control/GetLinks": Role.VIEWER,
    "/noodle.v1.Control/GetVersion": Role.VIEWER,
    "/noodle.v1.Control/ListPlans": Role.VIEWER,
    "/noodle.v1.Control/EstimateMove": Role.VIEWER,
    "/noodle.v1.Control/Generate": Role.OPERATOR,
    "/noodle.v1.Control/Apply": Role.OPERATOR,
    "/noodle.v1.Control/Drain": Role.OPERATOR,
    "/noodle.v1.Control/Undrain": Role.OPERATOR,
    "/noodle.v1.Control/Forget": Role.OPERATOR,
    "/noodle.v1.Control/Acknowledge": Role.OPERATOR,
    "/noodle.v1.Control/Profile": Role.OPERATOR,
    "/noodle.v1.Control/Cancel": Role.OPERATOR,
    "/noodle.v1.Control/GetText": Role.OPERATOR,
    "/noodle.v1.Control/SetSlowdown": Role.OPERATOR,
    "/noodle.v1.Control/ListMoves": Role.VIEWER,
    "/noodle.v1.Control/SetAdaptation": Role.OPERATOR,
    "/noodle.v1.Control/GetAdaptation": Role.VIEWER,
    "/noodle.v1.Control/GetManifest": Role.WORKER,
    "/noodle.v1.Control/Note": Role.WORKER,
    "/noodle.v1.StageService/Measure": Role.COORDINATOR,
    "/noodle.v1.StageService/Profile": Role.COORDINATOR,
    "/noodle.v1.StageService/Load": Role.COORDINATOR,
    "/noodle.v1.StageService/Forward": Role.WORKER,
    "/noodle.v1.StageService/ExportKv": Role.WORKER,
    "/noodle.v1.StageService/Prepare": Role.COORDINATOR,
    "/noodle.v1.StageService/GrantKv": Role.COORDINATOR,
    "/noodle.v1.StageService/CopyKv": Role.COORDINATOR,
    "/noodle.v1.StageService/Commit": Role.COORDINATOR,
    "/noodle.v1.StageService/SetSlowdown": Role.COORDINATOR,
    "/noodle.v1.StageService/Unload": Role.COORDINATOR,
    "/noodle.v1.StageService/GetStageStatus": Role.VIEWER,
    "/noodle.v1.StageService/MeasureLinks": Role.COORDINATOR,
    "/noodle.v1.StageService/Echo": Role.WORKER,
    "/noodle.v1.LineService/GetLines": Role.OPERATOR,
    "/noodle.v1.WeightService/Find": Role.WORKER,
    "/noodle.v1.WeightService/Fetch": Role.WORKER,
    "/grpc.health.v1.Health/Check": Role.VIEWER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
}
