# What Python sees of src_c/cdrop.h, which has the contracts.
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "cdrop.h" nogil:
    ctypedef enum cdrop_status:
        CDROP_OK
        CDROP_NO_MEMORY
        CDROP_UNSUPPORTED
        CDROP_NOT_FINITE
        CDROP_DIVERGED

    ctypedef enum cdrop_dtype:
        CDROP_FLOAT32
        CDROP_FLOAT64

    ctypedef enum cdrop_activation:
        CDROP_IDENTITY
        CDROP_RELU
        CDROP_LEAKY_RELU
        CDROP_TANH
        CDROP_SIGMOID

    ctypedef enum cdrop_loss:
        CDROP_SOFTMAX_CROSS_ENTROPY
        CDROP_SIGMOID_CROSS_ENTROPY
        CDROP_SQUARED_ERROR
        CDROP_ABSOLUTE_ERROR
        CDROP_HUBER
        CDROP_POISSON
        CDROP_QUANTILE

    ctypedef enum cdrop_kind:
        CDROP_BERNOULLI
        CDROP_GAUSSIAN
        CDROP_UNIFORM
        CDROP_SHARED
        CDROP_CONCRETE
        CDROP_MEMBERS

    ctypedef enum cdrop_rule:
        CDROP_SGD
        CDROP_MOMENTUM
        CDROP_NESTEROV
        CDROP_ADAGRAD
        CDROP_RMSPROP
        CDROP_ADAM

    ctypedef enum cdrop_part:
        CDROP_WEIGHT
        CDROP_STATE1
        CDROP_STATE2

    ctypedef enum cdrop_answer:
        CDROP_OUTPUTS
        CDROP_PROBABILITIES
        CDROP_LABELS

    ctypedef struct cdrop_learned_rate:
        pass

    ctypedef struct cdrop_optimizer:
        cdrop_rule rule
        double learning_rate
        double l2
        double weight_decay
        double a
        double b
        double epsilon
        double correction1
        double correction2
        double max_norm
        cdrop_learned_rate *learned
        double entropy

    ctypedef struct cdrop_design:
        cdrop_dtype dtype
        size_t layers
        const size_t *units
        const uint64_t *keep
        const int *varies
        const cdrop_kind *kinds
        size_t members
        int scale_in_training
        cdrop_activation activation
        cdrop_loss loss
        const double *loss_parameters
        uint64_t seed

    ctypedef enum cdrop_time:
        CDROP_TIMES

    ctypedef struct cdrop_network:
        pass

    ctypedef struct cdrop_kept:
        pass

    ctypedef struct cdrop_truth:
        const int64_t *labels
        const void *targets
        int one_target
        const double *weights

    ctypedef struct cdrop_batch:
        const void *x
        const int64_t *indptr
        const uint32_t *indices
        const int64_t *rows
        size_t n
        cdrop_truth truth
        const cdrop_kept *kept
        size_t number
        size_t samples
        double consistency

    ctypedef struct cdrop_uncertainty:
        void *mean
        void *deviation
        void *predictive_entropy
        void *expected_entropy
        void *mutual_information
        void *samples
        size_t stride

    ctypedef struct cdrop_sampling:
        size_t passes
        uint64_t seed
        size_t first_row
        const uint64_t *const *masks
        double *sums
        size_t done
        size_t until

    int CDROP_MAX_THREADS
    size_t cdrop_words(size_t units)
    cdrop_status cdrop_select_simd(const char *name)
    const char *cdrop_simd_active()
    const char *cdrop_simd_built(int i)
    const char *cdrop_simd_usable(int i)
    const char *cdrop_simd_parameter(cdrop_dtype dtype, int i, double *value)
    int cdrop_get_num_threads()
    void cdrop_set_num_threads(int threads)
    void cdrop_set_cpus(int cpus)
    int cdrop_all_finite(cdrop_dtype dtype, const void *x, size_t n)
    void cdrop_random_words(uint64_t *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose,
                            uint32_t layer, uint64_t block)
    void cdrop_random_normal(double *out, size_t n, uint64_t seed, uint64_t step, uint32_t purpose,
                             uint32_t layer, uint64_t block)
    void cdrop_bernoulli_mask(uint64_t *mask, size_t first_row, size_t rows, size_t units, uint64_t keep,
                              uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer)
    void cdrop_noise(cdrop_dtype dtype, void *noise, size_t pitch, size_t first_row, size_t rows, size_t units,
                     cdrop_kind kind, uint64_t keep, uint64_t seed, uint64_t step, uint32_t purpose, uint32_t layer)
    cdrop_status cdrop_masked_gemm(cdrop_dtype dtype, void *out, const void *x, const void *w, const void *bias,
                                   const uint64_t *mask, size_t rows, size_t n_in, size_t n_out, double scale,
                                   cdrop_activation activation, int threads)
    cdrop_status cdrop_masked_gradients(cdrop_dtype dtype, void *dinput, void *dweight, void *dbias,
                                        const void *dout, const void *x, const void *w, const uint64_t *mask,
                                        size_t rows, size_t n_in, size_t n_out, double scale,
                                        cdrop_activation activation, int threads)
    double cdrop_loss_and_gradient(cdrop_dtype dtype, cdrop_loss loss, const double *parameters, void *doutputs,
                                   const void *outputs, const cdrop_truth *truth, size_t rows, size_t n)
    void cdrop_exponential(cdrop_dtype dtype, void *x, size_t n)
    int cdrop_rule_states(cdrop_rule rule)
    void cdrop_update_weights(cdrop_dtype dtype, void *weight, const void *gradient, void *state1, void *state2,
                              size_t n, const cdrop_optimizer *optimizer)
    cdrop_status cdrop_limit_norms(cdrop_dtype dtype, void *weight, size_t n_in, size_t n_out, double max_norm)
    cdrop_status cdrop_network_create(cdrop_network **network, const cdrop_design *design)
    void cdrop_network_free(cdrop_network *network)
    void cdrop_network_set(cdrop_network *network, size_t layer, cdrop_part part, const void *weight, const void *bias)
    void cdrop_network_get(const cdrop_network *network, size_t layer, cdrop_part part, void *weight, void *bias)
    void cdrop_network_set_background(cdrop_network *network, const void *background)
    void cdrop_network_set_keep(cdrop_network *network, const uint64_t *keep)
    cdrop_status cdrop_network_reserve(cdrop_network *network, size_t rows, size_t samples, int threads)
    cdrop_status cdrop_keep_batches(cdrop_kept **kept, cdrop_network *network, const cdrop_batch *all, size_t size,
                                    int by_unit, int threads)
    void cdrop_kept_free(cdrop_kept *kept)
    cdrop_status cdrop_network_step(cdrop_network *network, const cdrop_batch *batch,
                                    const cdrop_optimizer *optimizer, uint64_t step, int threads, double *loss)
    size_t cdrop_network_fault(const cdrop_network *network, size_t rows, int *in_weights)
    const char *cdrop_time_name(int part, int *by_layer)
    cdrop_status cdrop_network_times(cdrop_network *network, int on, double *seconds)
    cdrop_status cdrop_network_predict(cdrop_network *network, void *out, const cdrop_batch *batch,
                                       cdrop_answer answer, int threads)
    cdrop_status cdrop_network_sample(cdrop_network *network, const cdrop_uncertainty *out, const cdrop_batch *batch,
                                      const cdrop_sampling *how, int threads)
