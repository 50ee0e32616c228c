from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_BFLOAT16: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_INT8: _ClassVar[DType]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_BFLOAT16: DType
DTYPE_FLOAT16: DType
DTYPE_INT8: DType

class ManifestRequest(_message.Message):
    __slots__ = ("fingerprint", "only_config")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ONLY_CONFIG_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    only_config: bool
    def __init__(self, fingerprint: _Optional[str] = ..., only_config: _Optional[bool] = ...) -> None: ...

class ManifestPart(_message.Message):
    __slots__ = ("progress", "detail", "config_text", "tensors")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CONFIG_TEXT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    progress: float
    detail: str
    config_text: bytes
    tensors: _containers.RepeatedCompositeFieldContainer[TensorEntry]
    def __init__(self, progress: _Optional[float] = ..., detail: _Optional[str] = ..., config_text: _Optional[bytes] = ..., tensors: _Optional[_Iterable[_Union[TensorEntry, _Mapping]]] = ...) -> None: ...

class TensorEntry(_message.Message):
    __slots__ = ("name", "dtype", "shape", "num_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    num_bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., num_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class NoteRequest(_message.Message):
    __slots__ = ("worker_id", "text")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    text: str
    def __init__(self, worker_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class NoteReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeSpec(_message.Message):
    __slots__ = ("node_id", "address", "host", "pid", "device", "device_name", "num_threads", "memory_bytes", "kv_budget_bytes", "num_cores", "device_type", "dtypes", "pool_id", "pool_bytes", "instance_id", "metrics_address", "arithmetic")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_CORES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    address: str
    host: str
    pid: int
    device: str
    device_name: str
    num_threads: int
    memory_bytes: int
    kv_budget_bytes: int
    num_cores: int
    device_type: str
    dtypes: _containers.RepeatedScalarFieldContainer[str]
    pool_id: str
    pool_bytes: int
    instance_id: str
    metrics_address: str
    arithmetic: str
    def __init__(self, node_id: _Optional[str] = ..., address: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., device: _Optional[str] = ..., device_name: _Optional[str] = ..., num_threads: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., num_cores: _Optional[int] = ..., device_type: _Optional[str] = ..., dtypes: _Optional[_Iterable[str]] = ..., pool_id: _Optional[str] = ..., pool_bytes: _Optional[int] = ..., instance_id: _Optional[str] = ..., metrics_address: _Optional[str] = ..., arithmetic: _Optional[str] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("model", "random_weights", "dtype", "kv_dtype")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    KV_DTYPE_FIELD_NUMBER: _ClassVar[int]
    model: str
    random_weights: int
    dtype: str
    kv_dtype: str
    def __init__(self, model: _Optional[str] = ..., random_weights: _Optional[int] = ..., dtype: _Optional[str] = ..., kv_dtype: _Optional[str] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("spec", "state", "version")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    spec: NodeSpec
    state: str
    version: VersionReply
    def __init__(self, spec: _Optional[_Union[NodeSpec, _Mapping]] = ..., state: _Optional[str] = ..., version: _Optional[_Union[VersionReply, _Mapping]] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("cluster_id", "generation", "heartbeat_period_s", "lease_s")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    generation: int
    heartbeat_period_s: float
    lease_s: float
    def __init__(self, cluster_id: _Optional[str] = ..., generation: _Optional[int] = ..., heartbeat_period_s: _Optional[float] = ..., lease_s: _Optional[float] = ...) -> None: ...

class Gauges(_message.Message):
    __slots__ = ("resident_bytes", "kv_used_bytes", "cpu_utilisation", "queue_depth", "gpu_utilisation", "gpu_temperature_c", "cpu_temperature_c", "machine", "core_wait")
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_UTILISATION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    GPU_UTILISATION_FIELD_NUMBER: _ClassVar[int]
    GPU_TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    CPU_TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    CORE_WAIT_FIELD_NUMBER: _ClassVar[int]
    resident_bytes: int
    kv_used_bytes: int
    cpu_utilisation: float
    queue_depth: int
    gpu_utilisation: float
    gpu_temperature_c: float
    cpu_temperature_c: float
    machine: MachineGauges
    core_wait: float
    def __init__(self, resident_bytes: _Optional[int] = ..., kv_used_bytes: _Optional[int] = ..., cpu_utilisation: _Optional[float] = ..., queue_depth: _Optional[int] = ..., gpu_utilisation: _Optional[float] = ..., gpu_temperature_c: _Optional[float] = ..., cpu_temperature_c: _Optional[float] = ..., machine: _Optional[_Union[MachineGauges, _Mapping]] = ..., core_wait: _Optional[float] = ...) -> None: ...

class MachineGauges(_message.Message):
    __slots__ = ("num_cores", "busy", "stolen", "clock", "swapped_bytes_per_s", "free_bytes", "total_bytes", "disk_free_bytes", "gpu_power_w", "gpu_power_limit_w", "gpu_throttled")
    NUM_CORES_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    STOLEN_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    SWAPPED_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_POWER_W_FIELD_NUMBER: _ClassVar[int]
    GPU_POWER_LIMIT_W_FIELD_NUMBER: _ClassVar[int]
    GPU_THROTTLED_FIELD_NUMBER: _ClassVar[int]
    num_cores: int
    busy: float
    stolen: float
    clock: float
    swapped_bytes_per_s: float
    free_bytes: int
    total_bytes: int
    disk_free_bytes: int
    gpu_power_w: float
    gpu_power_limit_w: float
    gpu_throttled: str
    def __init__(self, num_cores: _Optional[int] = ..., busy: _Optional[float] = ..., stolen: _Optional[float] = ..., clock: _Optional[float] = ..., swapped_bytes_per_s: _Optional[float] = ..., free_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., gpu_power_w: _Optional[float] = ..., gpu_power_limit_w: _Optional[float] = ..., gpu_throttled: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker_id", "generation", "state", "detail", "progress", "gauges")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    GAUGES_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    generation: int
    state: str
    detail: str
    progress: float
    gauges: Gauges
    def __init__(self, worker_id: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., progress: _Optional[float] = ..., gauges: _Optional[_Union[Gauges, _Mapping]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("worker_id", "generation")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    generation: int
    def __init__(self, worker_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("worker_id", "compute_s", "queue_s", "wire_in_s", "wire_out_s", "arrived_s", "done_s")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    WIRE_IN_S_FIELD_NUMBER: _ClassVar[int]
    WIRE_OUT_S_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_S_FIELD_NUMBER: _ClassVar[int]
    DONE_S_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    compute_s: float
    queue_s: float
    wire_in_s: float
    wire_out_s: float
    arrived_s: float
    done_s: float
    def __init__(self, worker_id: _Optional[str] = ..., compute_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., wire_in_s: _Optional[float] = ..., wire_out_s: _Optional[float] = ..., arrived_s: _Optional[float] = ..., done_s: _Optional[float] = ...) -> None: ...

class SegmentResult(_message.Message):
    __slots__ = ("session_id", "epoch", "sample_index", "token_id", "code", "message", "logprobs")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    sample_index: int
    token_id: int
    code: int
    message: str
    logprobs: Logprobs
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., sample_index: _Optional[int] = ..., token_id: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., logprobs: _Optional[_Union[Logprobs, _Mapping]] = ...) -> None: ...

class StepReport(_message.Message):
    __slots__ = ("worker_id", "plan_version", "step_id", "results", "timings", "unreachable_worker_id", "unreachable_why")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_WHY_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    plan_version: int
    step_id: int
    results: _containers.RepeatedCompositeFieldContainer[SegmentResult]
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    unreachable_worker_id: str
    unreachable_why: str
    def __init__(self, worker_id: _Optional[str] = ..., plan_version: _Optional[int] = ..., step_id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[SegmentResult, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., unreachable_worker_id: _Optional[str] = ..., unreachable_why: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_sequence", "min_interval_s", "keeps_finished")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FINISHED_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    min_interval_s: float
    keeps_finished: bool
    def __init__(self, after_sequence: _Optional[int] = ..., min_interval_s: _Optional[float] = ..., keeps_finished: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "wall_s", "severity", "kind", "subject", "text", "cause_id", "again_of")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_ID_FIELD_NUMBER: _ClassVar[int]
    AGAIN_OF_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    wall_s: float
    severity: str
    kind: str
    subject: str
    text: str
    cause_id: str
    again_of: int
    def __init__(self, sequence: _Optional[int] = ..., wall_s: _Optional[float] = ..., severity: _Optional[str] = ..., kind: _Optional[str] = ..., subject: _Optional[str] = ..., text: _Optional[str] = ..., cause_id: _Optional[str] = ..., again_of: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("worker_id", "pid", "host", "address", "device", "state", "detail", "progress", "start", "stop", "memory_bytes", "kv_budget_bytes", "heartbeat_age_s", "is_drained", "gauges", "runtime_bytes")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINED_FIELD_NUMBER: _ClassVar[int]
    GAUGES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_BYTES_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    pid: int
    host: str
    address: str
    device: str
    state: str
    detail: str
    progress: float
    start: int
    stop: int
    memory_bytes: int
    kv_budget_bytes: int
    heartbeat_age_s: float
    is_drained: bool
    gauges: Gauges
    runtime_bytes: int
    def __init__(self, worker_id: _Optional[str] = ..., pid: _Optional[int] = ..., host: _Optional[str] = ..., address: _Optional[str] = ..., device: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., progress: _Optional[float] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., heartbeat_age_s: _Optional[float] = ..., is_drained: _Optional[bool] = ..., gauges: _Optional[_Union[Gauges, _Mapping]] = ..., runtime_bytes: _Optional[int] = ...) -> None: ...

class StageStatus(_message.Message):
    __slots__ = ("worker_id", "start", "stop", "predicted_s", "compute_p50_s", "compute_p95_s", "queue_p50_s", "hop_p50_s", "num_steps", "history_s", "predicted_hop_s", "expected_s", "expected_hop_s", "hop_p95_s")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_P50_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_P95_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_P50_S_FIELD_NUMBER: _ClassVar[int]
    HOP_P50_S_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_HOP_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HOP_S_FIELD_NUMBER: _ClassVar[int]
    HOP_P95_S_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    start: int
    stop: int
    predicted_s: float
    compute_p50_s: float
    compute_p95_s: float
    queue_p50_s: float
    hop_p50_s: float
    num_steps: int
    history_s: _containers.RepeatedScalarFieldContainer[float]
    predicted_hop_s: float
    expected_s: float
    expected_hop_s: float
    hop_p95_s: float
    def __init__(self, worker_id: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., predicted_s: _Optional[float] = ..., compute_p50_s: _Optional[float] = ..., compute_p95_s: _Optional[float] = ..., queue_p50_s: _Optional[float] = ..., hop_p50_s: _Optional[float] = ..., num_steps: _Optional[int] = ..., history_s: _Optional[_Iterable[float]] = ..., predicted_hop_s: _Optional[float] = ..., expected_s: _Optional[float] = ..., expected_hop_s: _Optional[float] = ..., hop_p95_s: _Optional[float] = ...) -> None: ...

class Guessed(_message.Message):
    __slots__ = ("num_proposed", "num_accepted")
    NUM_PROPOSED_FIELD_NUMBER: _ClassVar[int]
    NUM_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    num_proposed: int
    num_accepted: int
    def __init__(self, num_proposed: _Optional[int] = ..., num_accepted: _Optional[int] = ...) -> None: ...

class SessionStatus(_message.Message):
    __slots__ = ("session_id", "state", "num_prompt_tokens", "num_generated", "max_new_tokens", "ttft_s", "tokens_per_s", "age_s", "step_p95_s", "queue_place", "waiting_s", "why", "finish_reason", "num_cached", "guessed", "num_read", "read_tokens_per_s", "queue_s", "prompt_s", "first_step_s")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_GENERATED_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    STEP_P95_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_PLACE_FIELD_NUMBER: _ClassVar[int]
    WAITING_S_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_FIELD_NUMBER: _ClassVar[int]
    GUESSED_FIELD_NUMBER: _ClassVar[int]
    NUM_READ_FIELD_NUMBER: _ClassVar[int]
    READ_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    PROMPT_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_S_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: str
    num_prompt_tokens: int
    num_generated: int
    max_new_tokens: int
    ttft_s: float
    tokens_per_s: float
    age_s: float
    step_p95_s: float
    queue_place: int
    waiting_s: float
    why: str
    finish_reason: str
    num_cached: int
    guessed: Guessed
    num_read: int
    read_tokens_per_s: float
    queue_s: float
    prompt_s: float
    first_step_s: float
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[str] = ..., num_prompt_tokens: _Optional[int] = ..., num_generated: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., ttft_s: _Optional[float] = ..., tokens_per_s: _Optional[float] = ..., age_s: _Optional[float] = ..., step_p95_s: _Optional[float] = ..., queue_place: _Optional[int] = ..., waiting_s: _Optional[float] = ..., why: _Optional[str] = ..., finish_reason: _Optional[str] = ..., num_cached: _Optional[int] = ..., guessed: _Optional[_Union[Guessed, _Mapping]] = ..., num_read: _Optional[int] = ..., read_tokens_per_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., prompt_s: _Optional[float] = ..., first_step_s: _Optional[float] = ...) -> None: ...

class SpeculationState(_message.Message):
    __slots__ = ("mode", "why_not", "num_proposed", "num_accepted")
    MODE_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_FIELD_NUMBER: _ClassVar[int]
    NUM_PROPOSED_FIELD_NUMBER: _ClassVar[int]
    NUM_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    mode: str
    why_not: str
    num_proposed: int
    num_accepted: int
    def __init__(self, mode: _Optional[str] = ..., why_not: _Optional[str] = ..., num_proposed: _Optional[int] = ..., num_accepted: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Precision(_message.Message):
    __slots__ = ("stored_dtype", "computed_dtype", "weight_bytes", "kv_dtype", "kv_bytes_per_token", "choices")
    STORED_DTYPE_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_DTYPE_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    stored_dtype: str
    computed_dtype: str
    weight_bytes: int
    kv_dtype: str
    kv_bytes_per_token: int
    choices: _containers.RepeatedCompositeFieldContainer[MemoryChoice]
    def __init__(self, stored_dtype: _Optional[str] = ..., computed_dtype: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., kv_dtype: _Optional[str] = ..., kv_bytes_per_token: _Optional[int] = ..., choices: _Optional[_Iterable[_Union[MemoryChoice, _Mapping]]] = ...) -> None: ...

class MemoryChoice(_message.Message):
    __slots__ = ("dtype", "weight_bytes", "kv_bytes_per_token")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    weight_bytes: int
    kv_bytes_per_token: int
    def __init__(self, dtype: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., kv_bytes_per_token: _Optional[int] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "random_weights", "has_tokenizer", "num_items", "context_tokens", "precision", "stand_in_tokenizer", "tokenizer_source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    HAS_TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    STAND_IN_TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    random_weights: bool
    has_tokenizer: bool
    num_items: int
    context_tokens: int
    precision: Precision
    stand_in_tokenizer: str
    tokenizer_source: str
    def __init__(self, name: _Optional[str] = ..., random_weights: _Optional[bool] = ..., has_tokenizer: _Optional[bool] = ..., num_items: _Optional[int] = ..., context_tokens: _Optional[int] = ..., precision: _Optional[_Union[Precision, _Mapping]] = ..., stand_in_tokenizer: _Optional[str] = ..., tokenizer_source: _Optional[str] = ...) -> None: ...

class Speed(_message.Message):
    __slots__ = ("tokens_per_s", "step_p50_s", "step_p95_s", "predicted_bottleneck_s", "predicted_step_s", "window_s", "newest_s", "entry_hop_s", "expected_entry_s", "expected_step_s")
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    STEP_P50_S_FIELD_NUMBER: _ClassVar[int]
    STEP_P95_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_BOTTLENECK_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_STEP_S_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    NEWEST_S_FIELD_NUMBER: _ClassVar[int]
    ENTRY_HOP_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ENTRY_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STEP_S_FIELD_NUMBER: _ClassVar[int]
    tokens_per_s: float
    step_p50_s: float
    step_p95_s: float
    predicted_bottleneck_s: float
    predicted_step_s: float
    window_s: float
    newest_s: float
    entry_hop_s: float
    expected_entry_s: float
    expected_step_s: float
    def __init__(self, tokens_per_s: _Optional[float] = ..., step_p50_s: _Optional[float] = ..., step_p95_s: _Optional[float] = ..., predicted_bottleneck_s: _Optional[float] = ..., predicted_step_s: _Optional[float] = ..., window_s: _Optional[float] = ..., newest_s: _Optional[float] = ..., entry_hop_s: _Optional[float] = ..., expected_entry_s: _Optional[float] = ..., expected_step_s: _Optional[float] = ...) -> None: ...

class Work(_message.Message):
    __slots__ = ("rows", "context_tokens", "num_lanes", "prompt_share", "prompt_tokens_per_s", "kv_reserved_tokens", "kv_capacity_tokens", "prefix_cache", "speculation")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_LANES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_SHARE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    KV_RESERVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_CACHE_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    rows: int
    context_tokens: int
    num_lanes: int
    prompt_share: float
    prompt_tokens_per_s: float
    kv_reserved_tokens: int
    kv_capacity_tokens: int
    prefix_cache: PrefixCacheStatus
    speculation: SpeculationState
    def __init__(self, rows: _Optional[int] = ..., context_tokens: _Optional[int] = ..., num_lanes: _Optional[int] = ..., prompt_share: _Optional[float] = ..., prompt_tokens_per_s: _Optional[float] = ..., kv_reserved_tokens: _Optional[int] = ..., kv_capacity_tokens: _Optional[int] = ..., prefix_cache: _Optional[_Union[PrefixCacheStatus, _Mapping]] = ..., speculation: _Optional[_Union[SpeculationState, _Mapping]] = ...) -> None: ...

class CoordinatorGauges(_message.Message):
    __slots__ = ("lag_s", "disk_free_bytes", "host", "cpu_utilisation")
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    CPU_UTILISATION_FIELD_NUMBER: _ClassVar[int]
    lag_s: float
    disk_free_bytes: int
    host: str
    cpu_utilisation: float
    def __init__(self, lag_s: _Optional[float] = ..., disk_free_bytes: _Optional[int] = ..., host: _Optional[str] = ..., cpu_utilisation: _Optional[float] = ...) -> None: ...

class Outlook(_message.Message):
    __slots__ = ("present_s", "best_s", "num_moved")
    PRESENT_S_FIELD_NUMBER: _ClassVar[int]
    BEST_S_FIELD_NUMBER: _ClassVar[int]
    NUM_MOVED_FIELD_NUMBER: _ClassVar[int]
    present_s: float
    best_s: float
    num_moved: int
    def __init__(self, present_s: _Optional[float] = ..., best_s: _Optional[float] = ..., num_moved: _Optional[int] = ...) -> None: ...

class Trouble(_message.Message):
    __slots__ = ("kind", "subject")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    subject: str
    def __init__(self, kind: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class EndedSessions(_message.Message):
    __slots__ = ("num_done", "num_failed", "latest")
    NUM_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    num_done: int
    num_failed: int
    latest: _containers.RepeatedCompositeFieldContainer[SessionStatus]
    def __init__(self, num_done: _Optional[int] = ..., num_failed: _Optional[int] = ..., latest: _Optional[_Iterable[_Union[SessionStatus, _Mapping]]] = ...) -> None: ...

class PrefixCacheStatus(_message.Message):
    __slots__ = ("is_on", "num_kept", "kept_tokens", "kept_bytes", "prompt_tokens", "cached_tokens", "num_evictions")
    IS_ON_FIELD_NUMBER: _ClassVar[int]
    NUM_KEPT_FIELD_NUMBER: _ClassVar[int]
    KEPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    is_on: bool
    num_kept: int
    kept_tokens: int
    kept_bytes: int
    prompt_tokens: int
    cached_tokens: int
    num_evictions: int
    def __init__(self, is_on: _Optional[bool] = ..., num_kept: _Optional[int] = ..., kept_tokens: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., num_evictions: _Optional[int] = ...) -> None: ...

class AdaptationState(_message.Message):
    __slots__ = ("mode", "suggestion_id")
    MODE_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_ID_FIELD_NUMBER: _ClassVar[int]
    mode: str
    suggestion_id: int
    def __init__(self, mode: _Optional[str] = ..., suggestion_id: _Optional[int] = ...) -> None: ...

class Alarms(_message.Message):
    __slots__ = ("acknowledged_sequence", "num_unacknowledged", "troubles")
    ACKNOWLEDGED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NUM_UNACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    acknowledged_sequence: int
    num_unacknowledged: int
    troubles: _containers.RepeatedCompositeFieldContainer[Trouble]
    def __init__(self, acknowledged_sequence: _Optional[int] = ..., num_unacknowledged: _Optional[int] = ..., troubles: _Optional[_Iterable[_Union[Trouble, _Mapping]]] = ...) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("cluster_id", "phase", "detail", "plan_version", "strategy", "num_workers_expected", "nodes", "stages", "sessions", "uptime_s", "failure", "identity", "model", "speed", "ended", "adaptation", "alarms", "work", "coordinator", "outlook")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    NUM_WORKERS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    OUTLOOK_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    phase: str
    detail: str
    plan_version: int
    strategy: str
    num_workers_expected: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    stages: _containers.RepeatedCompositeFieldContainer[StageStatus]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionStatus]
    uptime_s: float
    failure: str
    identity: str
    model: ModelStatus
    speed: Speed
    ended: EndedSessions
    adaptation: AdaptationState
    alarms: Alarms
    work: Work
    coordinator: CoordinatorGauges
    outlook: Outlook
    def __init__(self, cluster_id: _Optional[str] = ..., phase: _Optional[str] = ..., detail: _Optional[str] = ..., plan_version: _Optional[int] = ..., strategy: _Optional[str] = ..., num_workers_expected: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., stages: _Optional[_Iterable[_Union[StageStatus, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[SessionStatus, _Mapping]]] = ..., uptime_s: _Optional[float] = ..., failure: _Optional[str] = ..., identity: _Optional[str] = ..., model: _Optional[_Union[ModelStatus, _Mapping]] = ..., speed: _Optional[_Union[Speed, _Mapping]] = ..., ended: _Optional[_Union[EndedSessions, _Mapping]] = ..., adaptation: _Optional[_Union[AdaptationState, _Mapping]] = ..., alarms: _Optional[_Union[Alarms, _Mapping]] = ..., work: _Optional[_Union[Work, _Mapping]] = ..., coordinator: _Optional[_Union[CoordinatorGauges, _Mapping]] = ..., outlook: _Optional[_Union[Outlook, _Mapping]] = ...) -> None: ...

class WatchFrame(_message.Message):
    __slots__ = ("status", "events", "num_finished_kept")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_FINISHED_KEPT_FIELD_NUMBER: _ClassVar[int]
    status: ClusterStatus
    events: _containers.RepeatedCompositeFieldContainer[Event]
    num_finished_kept: int
    def __init__(self, status: _Optional[_Union[ClusterStatus, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., num_finished_kept: _Optional[int] = ...) -> None: ...

class LogitBias(_message.Message):
    __slots__ = ("token_id", "bias")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    bias: float
    def __init__(self, token_id: _Optional[int] = ..., bias: _Optional[float] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "min_tokens", "stop_token_ids", "logprobs", "top_logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: _containers.RepeatedCompositeFieldContainer[LogitBias]
    min_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: bool
    top_logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., min_p: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., logit_bias: _Optional[_Iterable[_Union[LogitBias, _Mapping]]] = ..., min_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[bool] = ..., top_logprobs: _Optional[int] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token_id", "logprob", "spelling")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    SPELLING_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    logprob: float
    spelling: bytes
    def __init__(self, token_id: _Optional[int] = ..., logprob: _Optional[float] = ..., spelling: _Optional[bytes] = ...) -> None: ...

class Logprobs(_message.Message):
    __slots__ = ("chosen", "top")
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    chosen: TokenLogprob
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, chosen: _Optional[_Union[TokenLogprob, _Mapping]] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class Used(_message.Message):
    __slots__ = ("sampling", "template", "from_model")
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    FROM_MODEL_FIELD_NUMBER: _ClassVar[int]
    sampling: Sampling
    template: str
    from_model: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sampling: _Optional[_Union[Sampling, _Mapping]] = ..., template: _Optional[str] = ..., from_model: _Optional[_Iterable[str]] = ...) -> None: ...

class Grammar(_message.Message):
    __slots__ = ("kind", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "prompt_ids", "max_new_tokens", "sampling", "stop", "ignore_eos", "session_id", "next_index", "resume", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "mode", "grammar", "for_caller")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_KWARGS_FIELD_NUMBER: _ClassVar[int]
    ADD_GENERATION_PROMPT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    FOR_CALLER_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    max_new_tokens: int
    sampling: Sampling
    stop: _containers.RepeatedScalarFieldContainer[str]
    ignore_eos: bool
    session_id: str
    next_index: int
    resume: bool
    messages: str
    tools: str
    chat_template_kwargs: str
    add_generation_prompt: bool
    mode: str
    grammar: Grammar
    for_caller: bytes
    def __init__(self, prompt: _Optional[str] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., max_new_tokens: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., stop: _Optional[_Iterable[str]] = ..., ignore_eos: _Optional[bool] = ..., session_id: _Optional[str] = ..., next_index: _Optional[int] = ..., resume: _Optional[bool] = ..., messages: _Optional[str] = ..., tools: _Optional[str] = ..., chat_template_kwargs: _Optional[str] = ..., add_generation_prompt: _Optional[bool] = ..., mode: _Optional[str] = ..., grammar: _Optional[_Union[Grammar, _Mapping]] = ..., for_caller: _Optional[bytes] = ...) -> None: ...

class TokenChunk(_message.Message):
    __slots__ = ("session_id", "index", "token_id", "text", "timings", "finish_reason", "prompt_ids", "step_s", "stand_in_tokenizer", "used", "logprobs", "cached_tokens", "num_proposed", "num_accepted")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    STAND_IN_TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_PROPOSED_FIELD_NUMBER: _ClassVar[int]
    NUM_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    index: int
    token_id: int
    text: str
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    finish_reason: str
    prompt_ids: _containers.RepeatedScalarFieldContainer[int]
    step_s: float
    stand_in_tokenizer: str
    used: Used
    logprobs: Logprobs
    cached_tokens: int
    num_proposed: int
    num_accepted: int
    def __init__(self, session_id: _Optional[str] = ..., index: _Optional[int] = ..., token_id: _Optional[int] = ..., text: _Optional[str] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., finish_reason: _Optional[str] = ..., prompt_ids: _Optional[_Iterable[int]] = ..., step_s: _Optional[float] = ..., stand_in_tokenizer: _Optional[str] = ..., used: _Optional[_Union[Used, _Mapping]] = ..., logprobs: _Optional[_Union[Logprobs, _Mapping]] = ..., cached_tokens: _Optional[int] = ..., num_proposed: _Optional[int] = ..., num_accepted: _Optional[int] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("node_id", "start", "stop")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    start: int
    stop: int
    def __init__(self, node_id: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("plan_version", "strategy", "stages", "stage_s", "bottleneck_s", "round_trip_s", "lower_bound", "optimal", "gap", "hop_s", "for_version")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STAGE_S_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    LOWER_BOUND_FIELD_NUMBER: _ClassVar[int]
    OPTIMAL_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    HOP_S_FIELD_NUMBER: _ClassVar[int]
    FOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    strategy: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    stage_s: _containers.RepeatedScalarFieldContainer[float]
    bottleneck_s: float
    round_trip_s: float
    lower_bound: float
    optimal: bool
    gap: float
    hop_s: _containers.RepeatedScalarFieldContainer[float]
    for_version: int
    def __init__(self, plan_version: _Optional[int] = ..., strategy: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., stage_s: _Optional[_Iterable[float]] = ..., bottleneck_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ..., lower_bound: _Optional[float] = ..., optimal: _Optional[bool] = ..., gap: _Optional[float] = ..., hop_s: _Optional[_Iterable[float]] = ..., for_version: _Optional[int] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("strategy", "stages", "without_worker_id", "with_worker_id", "without_worker_ids", "with_worker_ids")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    without_worker_id: str
    with_worker_id: str
    without_worker_ids: _containers.RepeatedScalarFieldContainer[str]
    with_worker_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, strategy: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., without_worker_id: _Optional[str] = ..., with_worker_id: _Optional[str] = ..., without_worker_ids: _Optional[_Iterable[str]] = ..., with_worker_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("expected_plan_version", "strategy", "stages")
    EXPECTED_PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    expected_plan_version: int
    strategy: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    def __init__(self, expected_plan_version: _Optional[int] = ..., strategy: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("worker_id", "expected_plan_version", "worker_ids")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    expected_plan_version: int
    worker_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., expected_plan_version: _Optional[int] = ..., worker_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UndrainRequest(_message.Message):
    __slots__ = ("worker_id", "expected_plan_version", "worker_ids")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    expected_plan_version: int
    worker_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., expected_plan_version: _Optional[int] = ..., worker_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("worker_id",)
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    def __init__(self, worker_id: _Optional[str] = ...) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcknowledgeRequest(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class AcknowledgeReply(_message.Message):
    __slots__ = ("sequence", "num_warnings")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NUM_WARNINGS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    num_warnings: int
    def __init__(self, sequence: _Optional[int] = ..., num_warnings: _Optional[int] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("session_id", "expected_plan_version")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    expected_plan_version: int
    def __init__(self, session_id: _Optional[str] = ..., expected_plan_version: _Optional[int] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTextRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class SessionText(_message.Message):
    __slots__ = ("session_id", "prompt", "answer", "num_prompt_left_out", "num_answer_left_out")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    NUM_PROMPT_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    NUM_ANSWER_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    prompt: str
    answer: str
    num_prompt_left_out: int
    num_answer_left_out: int
    def __init__(self, session_id: _Optional[str] = ..., prompt: _Optional[str] = ..., answer: _Optional[str] = ..., num_prompt_left_out: _Optional[int] = ..., num_answer_left_out: _Optional[int] = ...) -> None: ...

class SetSlowdownRequest(_message.Message):
    __slots__ = ("worker_id", "factor")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    factor: float
    def __init__(self, worker_id: _Optional[str] = ..., factor: _Optional[float] = ...) -> None: ...

class SetSlowdownReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetAdaptationRequest(_message.Message):
    __slots__ = ("mode", "decision_id", "expected_mode")
    MODE_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MODE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    decision_id: int
    expected_mode: str
    def __init__(self, mode: _Optional[str] = ..., decision_id: _Optional[int] = ..., expected_mode: _Optional[str] = ...) -> None: ...

class GetAdaptationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AdaptationStatus(_message.Message):
    __slots__ = ("mode", "history")
    MODE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    mode: str
    history: _containers.RepeatedCompositeFieldContainer[AdaptationEntry]
    def __init__(self, mode: _Optional[str] = ..., history: _Optional[_Iterable[_Union[AdaptationEntry, _Mapping]]] = ...) -> None: ...

class AdaptationEntry(_message.Message):
    __slots__ = ("decision_id", "age_s", "verdict", "sentence", "outcome", "before_s", "predicted_s", "cost_s", "realised_s", "realised_pause_s", "stages", "for_version")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_S_FIELD_NUMBER: _ClassVar[int]
    COST_S_FIELD_NUMBER: _ClassVar[int]
    REALISED_S_FIELD_NUMBER: _ClassVar[int]
    REALISED_PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    FOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    decision_id: int
    age_s: float
    verdict: str
    sentence: str
    outcome: str
    before_s: float
    predicted_s: float
    cost_s: float
    realised_s: float
    realised_pause_s: float
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    for_version: int
    def __init__(self, decision_id: _Optional[int] = ..., age_s: _Optional[float] = ..., verdict: _Optional[str] = ..., sentence: _Optional[str] = ..., outcome: _Optional[str] = ..., before_s: _Optional[float] = ..., predicted_s: _Optional[float] = ..., cost_s: _Optional[float] = ..., realised_s: _Optional[float] = ..., realised_pause_s: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., for_version: _Optional[int] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionReply(_message.Message):
    __slots__ = ("package_version", "protocol_version", "revision")
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    package_version: str
    protocol_version: int
    revision: int
    def __init__(self, package_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ListPlansRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PlanList(_message.Message):
    __slots__ = ("plans",)
    PLANS_FIELD_NUMBER: _ClassVar[int]
    plans: _containers.RepeatedCompositeFieldContainer[AdoptedPlan]
    def __init__(self, plans: _Optional[_Iterable[_Union[AdoptedPlan, _Mapping]]] = ...) -> None: ...

class AdoptedPlan(_message.Message):
    __slots__ = ("wall_s", "plan")
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    wall_s: float
    plan: Plan
    def __init__(self, wall_s: _Optional[float] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class EstimateMoveRequest(_message.Message):
    __slots__ = ("stages",)
    STAGES_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    def __init__(self, stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ...) -> None: ...

class MoveEstimate(_message.Message):
    __slots__ = ("plan_version", "num_items", "num_sessions", "weight_bytes", "kv_bytes", "load_s", "copy_s", "pause_s", "num_measured", "nodes", "unknowns")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NUM_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_S_FIELD_NUMBER: _ClassVar[int]
    COPY_S_FIELD_NUMBER: _ClassVar[int]
    PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    NUM_MEASURED_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWNS_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    num_items: int
    num_sessions: int
    weight_bytes: int
    kv_bytes: int
    load_s: float
    copy_s: float
    pause_s: float
    num_measured: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeMemory]
    unknowns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, plan_version: _Optional[int] = ..., num_items: _Optional[int] = ..., num_sessions: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., load_s: _Optional[float] = ..., copy_s: _Optional[float] = ..., pause_s: _Optional[float] = ..., num_measured: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeMemory, _Mapping]]] = ..., unknowns: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeMemory(_message.Message):
    __slots__ = ("node_id", "now_bytes", "peak_bytes", "after_bytes", "limit_bytes")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    AFTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    now_bytes: int
    peak_bytes: int
    after_bytes: int
    limit_bytes: int
    def __init__(self, node_id: _Optional[str] = ..., now_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., after_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ...) -> None: ...

class ListMovesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MoveList(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[MoveReport]
    def __init__(self, moves: _Optional[_Iterable[_Union[MoveReport, _Mapping]]] = ...) -> None: ...

class MoveReport(_message.Message):
    __slots__ = ("plan_version", "cause", "num_items", "weight_bytes", "kv_bytes", "prepare_s", "pause_s", "outcome")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREPARE_S_FIELD_NUMBER: _ClassVar[int]
    PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    cause: str
    num_items: int
    weight_bytes: int
    kv_bytes: int
    prepare_s: float
    pause_s: float
    outcome: str
    def __init__(self, plan_version: _Optional[int] = ..., cause: _Optional[str] = ..., num_items: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., prepare_s: _Optional[float] = ..., pause_s: _Optional[float] = ..., outcome: _Optional[str] = ...) -> None: ...

class ProfileRequest(_message.Message):
    __slots__ = ("worker_id", "quick")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    QUICK_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    quick: bool
    def __init__(self, worker_id: _Optional[str] = ..., quick: _Optional[bool] = ...) -> None: ...

class ProfileMessage(_message.Message):
    __slots__ = ("progress", "detail", "profile_json", "slowdown")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_JSON_FIELD_NUMBER: _ClassVar[int]
    SLOWDOWN_FIELD_NUMBER: _ClassVar[int]
    progress: float
    detail: str
    profile_json: str
    slowdown: float
    def __init__(self, progress: _Optional[float] = ..., detail: _Optional[str] = ..., profile_json: _Optional[str] = ..., slowdown: _Optional[float] = ...) -> None: ...

class GetProblemRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetProblemReply(_message.Message):
    __slots__ = ("problem_json",)
    PROBLEM_JSON_FIELD_NUMBER: _ClassVar[int]
    problem_json: str
    def __init__(self, problem_json: _Optional[str] = ...) -> None: ...

class GetLinksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Links(_message.Message):
    __slots__ = ("links",)
    LINKS_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[MeasuredLink]
    def __init__(self, links: _Optional[_Iterable[_Union[MeasuredLink, _Mapping]]] = ...) -> None: ...

class MeasuredLink(_message.Message):
    __slots__ = ("from_id", "to_id", "round_trip_s", "round_trip_low_s", "round_trip_high_s", "bandwidth_bytes_per_s", "bandwidth_low_bytes_per_s", "bandwidth_high_bytes_per_s", "num_round_trips", "num_transfers", "moved_bytes", "spent_s", "failure")
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_LOW_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_HIGH_S_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_LOW_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_HIGH_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    NUM_ROUND_TRIPS_FIELD_NUMBER: _ClassVar[int]
    NUM_TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPENT_S_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    from_id: str
    to_id: str
    round_trip_s: float
    round_trip_low_s: float
    round_trip_high_s: float
    bandwidth_bytes_per_s: float
    bandwidth_low_bytes_per_s: float
    bandwidth_high_bytes_per_s: float
    num_round_trips: int
    num_transfers: int
    moved_bytes: int
    spent_s: float
    failure: str
    def __init__(self, from_id: _Optional[str] = ..., to_id: _Optional[str] = ..., round_trip_s: _Optional[float] = ..., round_trip_low_s: _Optional[float] = ..., round_trip_high_s: _Optional[float] = ..., bandwidth_bytes_per_s: _Optional[float] = ..., bandwidth_low_bytes_per_s: _Optional[float] = ..., bandwidth_high_bytes_per_s: _Optional[float] = ..., num_round_trips: _Optional[int] = ..., num_transfers: _Optional[int] = ..., moved_bytes: _Optional[int] = ..., spent_s: _Optional[float] = ..., failure: _Optional[str] = ...) -> None: ...

class LinesRequest(_message.Message):
    __slots__ = ("worker_id", "after")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    after: int
    def __init__(self, worker_id: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class WrittenLine(_message.Message):
    __slots__ = ("number", "wall_s", "severity", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    wall_s: float
    severity: str
    text: str
    def __init__(self, number: _Optional[int] = ..., wall_s: _Optional[float] = ..., severity: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class LinesReply(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[WrittenLine]
    def __init__(self, lines: _Optional[_Iterable[_Union[WrittenLine, _Mapping]]] = ...) -> None: ...

class WantedTensor(_message.Message):
    __slots__ = ("name", "sha256", "num_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: bytes
    num_bytes: int
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[bytes] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("fingerprint", "tensors")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    tensors: _containers.RepeatedCompositeFieldContainer[WantedTensor]
    def __init__(self, fingerprint: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[WantedTensor, _Mapping]]] = ...) -> None: ...

class FindReply(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, found: _Optional[_Iterable[int]] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("fingerprint", "tensor", "offset_bytes")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    tensor: WantedTensor
    offset_bytes: int
    def __init__(self, fingerprint: _Optional[str] = ..., tensor: _Optional[_Union[WantedTensor, _Mapping]] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class WeightChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class WeightPeer(_message.Message):
    __slots__ = ("worker_id", "address", "bandwidth_bytes_per_s")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    bandwidth_bytes_per_s: float
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., bandwidth_bytes_per_s: _Optional[float] = ...) -> None: ...

class ProfileNodeRequest(_message.Message):
    __slots__ = ("model", "folder", "device", "num_threads", "quick", "fingerprint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    QUICK_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    folder: str
    device: str
    num_threads: int
    quick: bool
    fingerprint: str
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., folder: _Optional[str] = ..., device: _Optional[str] = ..., num_threads: _Optional[int] = ..., quick: _Optional[bool] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class MeasureRequest(_message.Message):
    __slots__ = ("model", "folder", "fingerprint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    folder: str
    fingerprint: str
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., folder: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class MeasureReply(_message.Message):
    __slots__ = ("decode_s", "base_s", "row_share", "rows", "row_factors")
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    BASE_S_FIELD_NUMBER: _ClassVar[int]
    ROW_SHARE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_FACTORS_FIELD_NUMBER: _ClassVar[int]
    decode_s: _containers.RepeatedScalarFieldContainer[float]
    base_s: float
    row_share: float
    rows: _containers.RepeatedScalarFieldContainer[int]
    row_factors: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, decode_s: _Optional[_Iterable[float]] = ..., base_s: _Optional[float] = ..., row_share: _Optional[float] = ..., rows: _Optional[_Iterable[int]] = ..., row_factors: _Optional[_Iterable[float]] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("model", "folder", "fingerprint", "plan_version", "start", "stop", "num_items", "next_worker_id", "next_address", "weight_peers")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_PEERS_FIELD_NUMBER: _ClassVar[int]
    model: ModelRef
    folder: str
    fingerprint: str
    plan_version: int
    start: int
    stop: int
    num_items: int
    next_worker_id: str
    next_address: str
    weight_peers: _containers.RepeatedCompositeFieldContainer[WeightPeer]
    def __init__(self, model: _Optional[_Union[ModelRef, _Mapping]] = ..., folder: _Optional[str] = ..., fingerprint: _Optional[str] = ..., plan_version: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., num_items: _Optional[int] = ..., next_worker_id: _Optional[str] = ..., next_address: _Optional[str] = ..., weight_peers: _Optional[_Iterable[_Union[WeightPeer, _Mapping]]] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("weight_bytes", "resident_bytes", "peak_resident_bytes", "resident_before_bytes", "load_s", "read_bytes", "used_cache", "fetched_bytes", "cached_bytes", "fetch_s", "fetched_from")
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BEFORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_S_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_CACHE_FIELD_NUMBER: _ClassVar[int]
    FETCHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FETCH_S_FIELD_NUMBER: _ClassVar[int]
    FETCHED_FROM_FIELD_NUMBER: _ClassVar[int]
    weight_bytes: int
    resident_bytes: int
    peak_resident_bytes: int
    resident_before_bytes: int
    load_s: float
    read_bytes: int
    used_cache: bool
    fetched_bytes: int
    cached_bytes: int
    fetch_s: float
    fetched_from: _containers.RepeatedCompositeFieldContainer[FetchedFrom]
    def __init__(self, weight_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., peak_resident_bytes: _Optional[int] = ..., resident_before_bytes: _Optional[int] = ..., load_s: _Optional[float] = ..., read_bytes: _Optional[int] = ..., used_cache: _Optional[bool] = ..., fetched_bytes: _Optional[int] = ..., cached_bytes: _Optional[int] = ..., fetch_s: _Optional[float] = ..., fetched_from: _Optional[_Iterable[_Union[FetchedFrom, _Mapping]]] = ...) -> None: ...

class FetchedFrom(_message.Message):
    __slots__ = ("source_id", "num_bytes")
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    source_id: str
    num_bytes: int
    def __init__(self, source_id: _Optional[str] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("session_id", "epoch", "position", "token_ids", "sample_index", "sampling", "reserve_tokens", "mask", "num_proposed", "follows", "taken")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_INDEX_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    RESERVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    NUM_PROPOSED_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    position: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    sample_index: int
    sampling: Sampling
    reserve_tokens: int
    mask: bytes
    num_proposed: int
    follows: bool
    taken: Taken
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., position: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., sample_index: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., reserve_tokens: _Optional[int] = ..., mask: _Optional[bytes] = ..., num_proposed: _Optional[int] = ..., follows: _Optional[bool] = ..., taken: _Optional[_Union[Taken, _Mapping]] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("kept_id", "num_tokens", "digest", "moves", "session_id", "epoch")
    KEPT_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    kept_id: int
    num_tokens: int
    digest: bytes
    moves: bool
    session_id: str
    epoch: int
    def __init__(self, kept_id: _Optional[int] = ..., num_tokens: _Optional[int] = ..., digest: _Optional[bytes] = ..., moves: _Optional[bool] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("kept_id", "session_id", "epoch", "num_tokens")
    KEPT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    kept_id: int
    session_id: str
    epoch: int
    num_tokens: int
    def __init__(self, kept_id: _Optional[int] = ..., session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("sequence", "start", "made_by", "is_late")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_FIELD_NUMBER: _ClassVar[int]
    IS_LATE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    start: int
    made_by: str
    is_late: bool
    def __init__(self, sequence: _Optional[int] = ..., start: _Optional[int] = ..., made_by: _Optional[str] = ..., is_late: _Optional[bool] = ...) -> None: ...

class StepFrame(_message.Message):
    __slots__ = ("plan_version", "step_id", "segments", "dtype", "shape", "payload", "crc32", "timings", "releases", "failures", "kept", "dropped", "slot")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    step_id: int
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    crc32: int
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    releases: _containers.RepeatedScalarFieldContainer[str]
    failures: _containers.RepeatedCompositeFieldContainer[SegmentResult]
    kept: _containers.RepeatedCompositeFieldContainer[Kept]
    dropped: _containers.RepeatedScalarFieldContainer[int]
    slot: Slot
    def __init__(self, plan_version: _Optional[int] = ..., step_id: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ..., crc32: _Optional[int] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., releases: _Optional[_Iterable[str]] = ..., failures: _Optional[_Iterable[_Union[SegmentResult, _Mapping]]] = ..., kept: _Optional[_Iterable[_Union[Kept, _Mapping]]] = ..., dropped: _Optional[_Iterable[int]] = ..., slot: _Optional[_Union[Slot, _Mapping]] = ...) -> None: ...

class ForwardReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportKvRequest(_message.Message):
    __slots__ = ("session_id", "epoch", "start_token", "stop_token", "only_layers", "layers")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ONLY_LAYERS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    start_token: int
    stop_token: int
    only_layers: bool
    layers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., start_token: _Optional[int] = ..., stop_token: _Optional[int] = ..., only_layers: _Optional[bool] = ..., layers: _Optional[_Iterable[int]] = ...) -> None: ...

class KvMessage(_message.Message):
    __slots__ = ("session", "block")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    session: KvSession
    block: KvBlock
    def __init__(self, session: _Optional[_Union[KvSession, _Mapping]] = ..., block: _Optional[_Union[KvBlock, _Mapping]] = ...) -> None: ...

class KvSession(_message.Message):
    __slots__ = ("session_id", "epoch", "token_ids", "sampling", "reserve_tokens")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    RESERVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    sampling: Sampling
    reserve_tokens: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., reserve_tokens: _Optional[int] = ...) -> None: ...

class KvBlock(_message.Message):
    __slots__ = ("layer", "start_token", "dtype", "key_shape", "value_shape", "keys", "values", "crc32")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    START_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_SHAPE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    layer: int
    start_token: int
    dtype: DType
    key_shape: _containers.RepeatedScalarFieldContainer[int]
    value_shape: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    values: bytes
    crc32: int
    def __init__(self, layer: _Optional[int] = ..., start_token: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ..., key_shape: _Optional[_Iterable[int]] = ..., value_shape: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ..., values: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class KvRange(_message.Message):
    __slots__ = ("session_id", "epoch", "start_token", "stop_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    start_token: int
    stop_token: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., start_token: _Optional[int] = ..., stop_token: _Optional[int] = ...) -> None: ...

class GrantKvRequest(_message.Message):
    __slots__ = ("plan_version", "to_worker_id")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    to_worker_id: str
    def __init__(self, plan_version: _Optional[int] = ..., to_worker_id: _Optional[str] = ...) -> None: ...

class GrantKvReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CopyKvRequest(_message.Message):
    __slots__ = ("plan_version", "source_worker_id", "source_address", "ranges")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    source_worker_id: str
    source_address: str
    ranges: _containers.RepeatedCompositeFieldContainer[KvRange]
    def __init__(self, plan_version: _Optional[int] = ..., source_worker_id: _Optional[str] = ..., source_address: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[KvRange, _Mapping]]] = ...) -> None: ...

class CopyKvReply(_message.Message):
    __slots__ = ("num_bytes",)
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    num_bytes: int
    def __init__(self, num_bytes: _Optional[int] = ...) -> None: ...

class CarriedSession(_message.Message):
    __slots__ = ("session_id", "epoch", "new_epoch", "num_tokens")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEW_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    epoch: int
    new_epoch: int
    num_tokens: int
    def __init__(self, session_id: _Optional[str] = ..., epoch: _Optional[int] = ..., new_epoch: _Optional[int] = ..., num_tokens: _Optional[int] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("plan_version", "sessions")
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    sessions: _containers.RepeatedCompositeFieldContainer[CarriedSession]
    def __init__(self, plan_version: _Optional[int] = ..., sessions: _Optional[_Iterable[_Union[CarriedSession, _Mapping]]] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, missing: _Optional[_Iterable[str]] = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("plan_version",)
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    plan_version: int
    def __init__(self, plan_version: _Optional[int] = ...) -> None: ...

class UnloadReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStageStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StageServiceStatus(_message.Message):
    __slots__ = ("worker_id", "plan_version", "start", "stop", "weight_bytes", "kv_used_bytes", "kv_budget_bytes", "resident_bytes", "session_ids")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    plan_version: int
    start: int
    stop: int
    weight_bytes: int
    kv_used_bytes: int
    kv_budget_bytes: int
    resident_bytes: int
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., plan_version: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., kv_used_bytes: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., session_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("worker_id", "address")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class MeasureLinksRequest(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class EchoFrame(_message.Message):
    __slots__ = ("payload", "reply_bytes")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    reply_bytes: int
    def __init__(self, payload: _Optional[bytes] = ..., reply_bytes: _Optional[int] = ...) -> None: ...
